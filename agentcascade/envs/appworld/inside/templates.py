"""Kinds of tasks: what is asked, what must be so afterwards, and how somebody who knows the apps would go about it.

Solutions are written as an agent would write them, a block of code a step; each ends with `complete_task`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from society import EXTENSIONS, PRIORITIES, RELATIONSHIPS, Person

Step = tuple[str, str]
"""A thought and its code"""


@dataclass
class Instance:
    """One task of a kind, for one person."""

    person: Person
    instruction: str
    steps: list[Step]
    answer: Any = None
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    along: tuple[str, ...] = ()
    """Tables that change with what was asked for"""


@dataclass(frozen=True)
class Template:
    name: str
    apps: tuple[str, ...]
    difficulty: int
    instances: Callable[[Any, list[Person]], Iterator[Instance]]


def changes(
    fields: tuple[str, ...] = (),
    added: list[list[Any]] | None = None,
    updated: dict[int, dict[str, Any]] | None = None,
    removed: list[int] | None = None,
) -> dict[str, Any]:
    """What must have changed in a table. A value of None may be any."""
    names = sorted(fields)
    order = [fields.index(name) for name in names]
    return {
        "fields": names,
        "added": [[str(row[i]) for i in order] for row in added or []],
        "updated": {str(i): values for i, values in (updated or {}).items()},
        "removed": removed or [],
    }


def read_docs(app: str, *apis: str) -> Step:
    calls = "\n".join(f"print(apis.api_docs.show_api_doc(app_name='{app}', api_name='{api}'))" for api in apis)
    return f"I need to know how {' and '.join(apis)} of {app} work.", calls


def log_in(app: str) -> Step:
    name = "phone_number" if app == "phone" else "email"
    return (
        f"I log in to {app} with the supervisor's account.",
        "passwords = {a['account_name']: a['password'] for a in apis.supervisor.show_account_passwords()}\n"
        "profile = apis.supervisor.show_profile()\n"
        f"{app}_token = apis.{app}.login(username=profile['{name}'], password=passwords['{app}'])['access_token']",
    )


def all_pages(target: str, call: str, show: str) -> str:
    head, _, rest = call.partition("(")
    arguments = f"{rest.rstrip(')')}, page_index=page" if rest.rstrip(")") else "page_index=page"
    return (
        f"{target} = []\nfor page in range(100):\n    found = apis.{head}({arguments})\n"
        f"    if not found:\n        break\n    {target} += found\n{show}"
    )


def done(answer: str = "") -> Step:
    return "All is done. I complete the task.", f"apis.supervisor.complete_task({answer and f'answer={answer}'})"


def playlist_steps(title: str) -> list[Step]:
    return [
        read_docs("spotify", "show_playlist_library"),
        log_in("spotify"),
        (
            f"I look for the playlist {title} in the library.",
            all_pages(
                "playlists",
                "spotify.show_playlist_library(access_token=spotify_token)",
                f"playlist = next(p for p in playlists if p['title'] == '{title}')\nprint(playlist)",
            ),
        ),
    ]


def own(models: Any, app: str, person: Person) -> Any:
    where = {"phone_number": person.phone_number} if app == "phone" else {"email": person.email}
    return models[app].User.find_one(**where)


def playlists_of(models: Any, person: Person) -> Iterator[tuple[Any, list[Any]]]:
    user = own(models, "spotify", person)
    for playlist in models.spotify.Playlist.find_all(user_id=user.id):
        links = models.spotify.PlaylistSong.find_all(playlist_id=playlist.id)
        yield playlist, [models.spotify.Song.by_id(link.song_id) for link in links]


def like_playlist(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        user = own(models, "spotify", person)
        liked = {like.song_id for like in models.spotify.SongLike.find_all(user_id=user.id)}
        for playlist, songs in playlists_of(models, person):
            new = sorted(s.id for s in songs if s.id not in liked)
            if new:
                yield Instance(
                    person,
                    f"Like all the songs on my Spotify playlist '{playlist.title}' that I have not liked yet.",
                    [
                        *playlist_steps(playlist.title),
                        read_docs("spotify", "show_liked_songs", "like_song"),
                        (
                            "I find out which songs are liked already.",
                            all_pages(
                                "liked",
                                "spotify.show_liked_songs(access_token=spotify_token)",
                                "liked_ids = {s['song_id'] for s in liked}\nprint(sorted(liked_ids))",
                            ),
                        ),
                        (
                            "I like those that are not.",
                            "for song_id in playlist['song_ids']:\n    if song_id not in liked_ids:\n"
                            "        print(apis.spotify.like_song(song_id=song_id, access_token=spotify_token))",
                        ),
                        done(),
                    ],
                    tables={"spotify.SongLike": changes(("user_id", "song_id"), [[user.id, i] for i in new])},
                    along=("spotify.Song",),
                )


SUPERLATIVES = {
    "most-played": ("play_count", "max"),
    "least-played": ("play_count", "min"),
    "longest": ("duration", "max"),
    "shortest": ("duration", "min"),
}


def library_question(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        user = own(models, "spotify", person)
        links = models.spotify.UserLibrarySong.find_all(user_id=user.id)
        songs = [models.spotify.Song.by_id(link.song_id) for link in links]
        for word, (attribute, pick) in SUPERLATIVES.items():
            best = {"max": max, "min": min}[pick](songs, key=lambda s: getattr(s, attribute))
            yield Instance(
                person,
                f"What is the title of the {word} song in my Spotify song library?",
                [
                    read_docs("spotify", "show_song_library", "show_song"),
                    log_in("spotify"),
                    (
                        "I fetch the whole song library.",
                        all_pages(
                            "library",
                            "spotify.show_song_library(access_token=spotify_token)",
                            "print([s['song_id'] for s in library])",
                        ),
                    ),
                    (
                        f"The {attribute} is a detail of each song. I look for the {word}.",
                        "songs = [apis.spotify.show_song(song_id=s['song_id']) for s in library]\n"
                        f"best = {pick}(songs, key=lambda s: s['{attribute}'])\nprint(best['title'])",
                    ),
                    done("best['title']"),
                ],
                answer=best.title,
            )


def note_steps(title: str) -> list[Step]:
    return [
        read_docs("simple_note", "search_notes", "show_note"),
        log_in("simple_note"),
        (
            f"I look for the note {title} and read it.",
            all_pages(
                "notes",
                "simple_note.search_notes(access_token=simple_note_token)",
                f"note_id = next(n['note_id'] for n in notes if n['title'] == '{title}')\n"
                "note = apis.simple_note.show_note(note_id=note_id, access_token=simple_note_token)\n"
                "print(note['content'])",
            ),
        ),
    ]


def note_total(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        for note in models.simple_note.Note.find_all(user_id=own(models, "simple_note", person).id):
            prices = re.findall(r"\$(\d+)\.(\d\d)", note.content)
            if prices:
                cents = sum(int(dollars) * 100 + int(cent) for dollars, cent in prices)
                yield Instance(
                    person,
                    f"How many dollars did I spend in total, according to my Simple Note note '{note.title}'?",
                    [
                        *note_steps(note.title),
                        (
                            "I add up the amounts.",
                            "amounts = re.findall(r'\\$(\\d+\\.\\d\\d)', note['content'])\n"
                            "total = round(sum(float(a) for a in amounts), 2)\nprint(total)",
                        ),
                        done("total"),
                    ],
                    answer=cents / 100,
                )


def project_step(name: str) -> Step:
    return (
        f"I look for the project {name}.",
        all_pages(
            "projects",
            "todoist.show_projects(access_token=todoist_token)",
            f"project_id = next(p['project_id'] for p in projects if p['name'] == '{name}')\nprint(project_id)",
        ),
    )


def complete_chores(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        for project in models.todoist.Project.find_all(user_id=own(models, "todoist", person).id):
            if project.is_inbox:
                continue
            for priority in PRIORITIES:
                tasks = models.todoist.Task.find_all(project_id=project.id, priority=priority, is_completed=False)
                yield Instance(
                    person,
                    f"Mark all {priority}-priority tasks of my Todoist project '{project.name}' as completed.",
                    [
                        read_docs("todoist", "show_projects", "show_tasks", "update_task"),
                        log_in("todoist"),
                        project_step(project.name),
                        (
                            f"I fetch its {priority}-priority tasks that are not completed.",
                            "shown = apis.todoist.show_tasks(project_id=project_id, access_token=todoist_token, "
                            f"priority='{priority}', is_completed=False)\n"
                            "tasks = shown['no_section_tasks'] + [t for s in shown['sections'] for t in s['tasks']]\n"
                            "print([t['title'] for t in tasks])",
                        ),
                        (
                            "I mark each of them as completed.",
                            "for task in tasks:\n    print(apis.todoist.update_task(task_id=task['task_id'], "
                            "access_token=todoist_token, is_completed=True))",
                        ),
                        done(),
                    ],
                    tables={"todoist.Task": changes(updated={t.id: {"is_completed": True} for t in tasks})},
                )


def silence_alarms(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        alarms = models.phone.Alarm.find_all(user_id=own(models, "phone", person).id)
        for limit in ("09:00", "12:00", "15:00", "18:00"):
            off = [a for a in alarms if a.enabled and a.time < limit]
            if off:
                yield Instance(
                    person,
                    f"Turn off all alarms on my phone that ring before {limit}.",
                    [
                        read_docs("phone", "show_alarms", "update_alarm"),
                        log_in("phone"),
                        (
                            "I fetch all alarms.",
                            all_pages(
                                "alarms",
                                "phone.show_alarms(access_token=phone_token)",
                                "print([(a['label'], a['time'], a['enabled']) for a in alarms])",
                            ),
                        ),
                        (
                            f"I turn off those before {limit} that are on.",
                            f"for alarm in alarms:\n    if alarm['time'] < '{limit}' and alarm['enabled']:\n"
                            "        print(apis.phone.update_alarm(alarm_id=alarm['alarm_id'], "
                            "access_token=phone_token, enabled=False))",
                        ),
                        done(),
                    ],
                    tables={"phone.Alarm": changes(updated={a.id: {"enabled": False} for a in off})},
                )


def contacts_step(relationship: str) -> Step:
    return (
        f"I fetch the contacts that are {relationship}s.",
        all_pages(
            "people",
            f"phone.search_contacts(access_token=phone_token, relationship='{relationship}')",
            "print([p['first_name'] for p in people])",
        ),
    )


MESSAGES = ("I will be late today.", "Dinner is at eight.", "Please call me back.", "The meeting is moved to Friday.")


def text_contacts(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        user = own(models, "phone", person)
        for i, relationship in enumerate(RELATIONSHIPS):
            message = MESSAGES[(i + user.id) % len(MESSAGES)]
            meant = [p for p in everybody if person.contacts.get(p.email) == relationship]
            rows = [[user.id, own(models, "phone", p).id, message] for p in meant]
            yield Instance(
                person,
                f"Send the text message '{message}' to each of my {relationship}s.",
                [
                    read_docs("phone", "search_contacts", "send_text_message"),
                    log_in("phone"),
                    contacts_step(relationship),
                    (
                        "I send each of them the message.",
                        "for person in people:\n    print(apis.phone.send_text_message("
                        f"phone_number=person['phone_number'], message='{message}', access_token=phone_token))",
                    ),
                    done(),
                ],
                tables={"phone.GlobalTextMessage": changes(("sender_id", "receiver_id", "message"), rows)},
                along=("phone.UserTextMessage",),
            )


def answer_requests(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        user = own(models, "venmo", person)
        asked = models.venmo.PaymentRequest.find_all(receiver_id=user.id)
        waiting = [r for r in asked if r.approved_at is None and r.denied_at is None]
        emails = {r.id: models.venmo.User.by_id(r.sender_id).email for r in waiting}
        for relationship in RELATIONSHIPS:
            meant = {r.id for r in waiting if person.contacts[emails[r.id]] == relationship}
            if not meant:
                continue
            yield Instance(
                person,
                f"Deny all pending Venmo payment requests from my {relationship}s.",
                [
                    read_docs("venmo", "show_received_payment_requests", "deny_payment_request"),
                    log_in("phone"),
                    contacts_step(relationship),
                    log_in("venmo"),
                    (
                        "I fetch the pending requests.",
                        all_pages(
                            "requests",
                            "venmo.show_received_payment_requests(access_token=venmo_token, status='pending')",
                            "print([(r['payment_request_id'], r['sender']['email']) for r in requests])",
                        ),
                    ),
                    (
                        "I deny those that come from them.",
                        "emails = {p['email'] for p in people}\nfor request in requests:\n"
                        "    if request['sender']['email'] in emails:\n"
                        "        print(apis.venmo.deny_payment_request("
                        "payment_request_id=request['payment_request_id'], access_token=venmo_token))",
                    ),
                    done(),
                ],
                tables={"venmo.PaymentRequest": changes(updated={i: {"denied_at": None} for i in sorted(meant)})},
                along=("venmo.Notification",),
            )


def note_to_chores(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        user = own(models, "todoist", person)
        notes = models.simple_note.Note.find_all(user_id=own(models, "simple_note", person).id)
        projects = [p for p in models.todoist.Project.find_all(user_id=user.id) if not p.is_inbox]
        for i, note in enumerate(n for n in notes if n.title.endswith("List")):
            project = projects[i % len(projects)]
            items = re.findall(r"^- (.+)$", note.content, re.MULTILINE)
            yield Instance(
                person,
                f"Add every item of my Simple Note note '{note.title}' as a task to my Todoist project "
                f"'{project.name}'.",
                [
                    *note_steps(note.title),
                    (
                        "I take the items out of the note.",
                        "items = [line[2:] for line in note['content'].splitlines() if line.startswith('- ')]\n"
                        "print(items)",
                    ),
                    read_docs("todoist", "show_projects", "create_task"),
                    log_in("todoist"),
                    project_step(project.name),
                    (
                        "I add a task for each item.",
                        "for item in items:\n    print(apis.todoist.create_task(project_id=project_id, title=item, "
                        "access_token=todoist_token))",
                    ),
                    done(),
                ],
                tables={"todoist.Task": changes(("project_id", "title"), [[project.id, item] for item in items])},
            )


def follow_artists(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        user = own(models, "spotify", person)
        followed = {f.artist_id for f in models.spotify.UserArtistFollowing.find_all(user_id=user.id)}
        for playlist, songs in playlists_of(models, person):
            new = sorted({a for s in songs for a in s.artist_ids} - followed)
            if new:
                yield Instance(
                    person,
                    f"Follow all artists of the songs on my Spotify playlist '{playlist.title}' whom I do not follow "
                    "yet.",
                    [
                        *playlist_steps(playlist.title),
                        read_docs("spotify", "show_following_artists", "follow_artist"),
                        (
                            "I find out whom I follow already.",
                            all_pages(
                                "following",
                                "spotify.show_following_artists(access_token=spotify_token)",
                                "followed_ids = {a['artist_id'] for a in following}\nprint(sorted(followed_ids))",
                            ),
                        ),
                        (
                            "I collect the artists of its songs.",
                            "songs = [apis.spotify.show_song(song_id=i) for i in playlist['song_ids']]\n"
                            "artist_ids = {a['id'] for s in songs for a in s['artists']}\nprint(sorted(artist_ids))",
                        ),
                        (
                            "I follow those whom I do not follow.",
                            "for artist_id in sorted(artist_ids - followed_ids):\n"
                            "    print(apis.spotify.follow_artist(artist_id=artist_id, access_token=spotify_token))",
                        ),
                        done(),
                    ],
                    tables={
                        "spotify.UserArtistFollowing": changes(("user_id", "artist_id"), [[user.id, i] for i in new])
                    },
                    along=("spotify.Artist",),
                )


def folder_step(folder: str, extension: str) -> Step:
    return (
        f"I list the files of ~/{folder}.",
        f"paths = apis.file_system.show_directory(access_token=file_system_token, directory_path='~/{folder}/', "
        f"entry_type='files')\nmeant = [p for p in paths if p.endswith('.{extension}')]\nprint(meant)",
    )


def files_of(models: Any, person: Person, folder: str, extension: str) -> list[Any]:
    user = own(models, "file_system", person)
    found = models.file_system.File.find_all(user_id=user.id)
    return [f for f in found if f"/{folder}/" in f.path and f.path.endswith(f".{extension}")]


def delete_files(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        for extension in EXTENSIONS:
            meant = files_of(models, person, "downloads", extension)
            if meant:
                yield Instance(
                    person,
                    f"Delete all .{extension} files in the folder ~/downloads of my file system.",
                    [
                        read_docs("file_system", "show_directory", "delete_file"),
                        log_in("file_system"),
                        folder_step("downloads", extension),
                        (
                            "I delete each of them.",
                            "for path in meant:\n    print(apis.file_system.delete_file(file_path=path, "
                            "access_token=file_system_token))",
                        ),
                        done(),
                    ],
                    tables={"file_system.File": changes(removed=[f.id for f in meant])},
                    along=("file_system.Directory",),
                )


def count_files(models: Any, everybody: list[Person]) -> Iterator[Instance]:
    for person in everybody:
        for extension in EXTENSIONS:
            yield Instance(
                person,
                f"How many .{extension} files are in the folder ~/documents of my file system?",
                [
                    read_docs("file_system", "show_directory"),
                    log_in("file_system"),
                    folder_step("documents", extension),
                    done("len(meant)"),
                ],
                answer=len(files_of(models, person, "documents", extension)),
            )


NORMAL = (
    Template("like_playlist", ("spotify",), 2, like_playlist),
    Template("library_question", ("spotify",), 1, library_question),
    Template("note_total", ("simple_note",), 1, note_total),
    Template("complete_chores", ("todoist",), 2, complete_chores),
    Template("silence_alarms", ("phone",), 1, silence_alarms),
    Template("text_contacts", ("phone",), 1, text_contacts),
    Template("answer_requests", ("phone", "venmo"), 3, answer_requests),
    Template("note_to_chores", ("simple_note", "todoist"), 3, note_to_chores),
)
CHALLENGE = (
    Template("follow_artists", ("spotify",), 3, follow_artists),
    Template("delete_files", ("file_system",), 2, delete_files),
    Template("count_files", ("file_system",), 1, count_files),
)
"""Kinds that the training split has none of, most of them in an app that it never opens"""
