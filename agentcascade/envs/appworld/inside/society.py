"""The people of a generated world and what is in their apps, made through AppWorld's own models.

Everything is drawn from one seed. Nobody in it exists.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

NOW = datetime(2023, 5, 18, 12, 0)
"""What the clock shows in every generated task"""
BEFORE = datetime(2023, 4, 2, 9, 30)
"""When everything was made"""
FIRST = ("Anna", "Bruno", "Clara", "David", "Elena", "Felix", "Grace", "Hugo", "Irene", "Jonas", "Karla", "Leon")
LAST = (
    "Abbott",
    "Becker",
    "Castro",
    "Dalton",
    "Ellis",
    "Fischer",
    "Grant",
    "Howard",
    "Ito",
    "Jansen",
    "Keller",
    "Lopez",
)
RELATIONSHIPS = ("roommate", "coworker", "friend", "sibling")
ADJECTIVES = (
    "Silver",
    "Quiet",
    "Broken",
    "Electric",
    "Golden",
    "Midnight",
    "Paper",
    "Crimson",
    "Hollow",
    "Distant",
    "Velvet",
    "Burning",
)
NOUNS = (
    "River",
    "Window",
    "Garden",
    "Engine",
    "Mirror",
    "Lantern",
    "Harbor",
    "Forest",
    "Letter",
    "Mountain",
    "Clock",
    "Shadow",
)
GENRES = ("rock", "jazz", "pop", "folk", "classical")
PLAYLISTS = ("Morning Run", "Deep Focus", "Road Trip", "Rainy Sunday", "Kitchen Party", "Late Train")
NOTES = {
    "Groceries": ("bread", "olive oil", "coffee", "rice", "cheese", "apples"),
    "Camping Trip": ("tent pegs", "gas stove", "headlamp", "sleeping mat", "rope"),
    "Home Repairs": ("paint", "door hinge", "light bulbs", "wall plugs", "sandpaper"),
    "Birthday Party": ("candles", "balloons", "paper cups", "lemonade", "napkins"),
}
PROJECTS = ("House Move", "Garden", "Thesis", "Spring Cleaning")
CHORES = (
    "Call the plumber",
    "Order boxes",
    "Write the outline",
    "Water the plants",
    "Return the books",
    "Book the van",
    "Fix the gate",
    "Sort the photos",
    "Renew the passport",
    "Clean the windows",
)
PRIORITIES = ("high", "medium", "low")
ALARMS = ("Wake up", "Gym", "Medicine", "Stand-up meeting", "Walk the dog", "Bedtime")
EXTENSIONS = ("tmp", "log", "pdf", "txt")
APPS_WITH_ACCOUNT = (
    "amazon",
    "file_system",
    "gmail",
    "phone",
    "simple_note",
    "splitwise",
    "spotify",
    "todoist",
    "venmo",
)


@dataclass
class Person:
    """Someone, and what of theirs the tasks are about."""

    first_name: str
    last_name: str
    email: str
    phone_number: str
    birthday: str
    sex: str
    passwords: dict[str, str]
    contacts: dict[str, str] = field(default_factory=dict)
    """Relationships by email"""

    @property
    def identity(self) -> dict[str, str]:
        """What AppWorld calls a supervisor."""
        return {k: getattr(self, k) for k in ("first_name", "last_name", "email", "phone_number")}


def people(rng: random.Random) -> list[Person]:
    made = []
    for i, (first, last) in enumerate(zip(FIRST, LAST)):
        passwords = {app: "".join(rng.choices("abcdefghkmnpqrstuvwxyz23456789", k=8)) for app in APPS_WITH_ACCOUNT}
        number = "".join(rng.choices("23456789", k=10))
        birthday = f"19{rng.randint(60, 99)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        email = f"{first}.{last}@example.com".lower()
        made.append(Person(first, last, email, number, birthday, ("female", "male")[i % 2], passwords))
    return made


def furnish(models: Any, everybody: list[Person], rng: random.Random) -> None:
    """Give everybody accounts and belongings."""
    users = {app: {p.email: account(models, app, p) for p in everybody} for app in APPS_WITH_ACCOUNT}
    for person in everybody:
        main = models.admin.MainUser.create_save(**person.identity, birthday=person.birthday, sex=person.sex)
        for app, password in person.passwords.items():
            models.admin.AccountPassword.create_save(main_user_id=main.id, account_name=app, password=password)
    music(models.spotify, [users["spotify"][p.email] for p in everybody], rng)
    for person in everybody:
        notes(models.simple_note, users["simple_note"][person.email], rng)
        chores(models.todoist, users["todoist"][person.email], rng)
        alarms(models.phone, users["phone"][person.email], rng)
        files(models.file_system, users["file_system"][person.email], rng)
        acquaintances(models.phone, person, users["phone"][person.email], everybody, rng)
        requests(models.venmo, person, users["venmo"], rng)


def account(models: Any, app: str, person: Person) -> Any:
    own: dict[str, Any] = {"first_name": person.first_name, "last_name": person.last_name}
    own["password"] = person.passwords[app]
    own |= {"phone_number": person.phone_number} if app == "phone" else {"email": person.email, "verified": True}
    if app == "venmo":
        own["venmo_balance"] = 5000.0
    return models[app].User.create_save(**own)


def titles(rng: random.Random) -> Iterator[str]:
    found = [f"{a} {n}" for a in ADJECTIVES for n in NOUNS]
    rng.shuffle(found)
    yield from found


def music(models: Any, users: list[Any], rng: random.Random) -> None:
    names = titles(rng)
    artists = [models.Artist.create_save(name=f"The {next(names)}s", genre=rng.choice(GENRES)) for _ in range(20)]
    counts = rng.sample(range(100, 1000), 80)
    seconds = rng.sample(range(120, 400), 80)
    songs = [
        models.Song.create_save(
            title=next(names),
            artist_ids=[rng.choice(artists).id],
            duration=seconds[i],
            release_date=datetime(rng.randint(1990, 2022), rng.randint(1, 12), 1),
            genre=rng.choice(GENRES),
            play_count=counts[i],
        )
        for i in range(80)
    ]
    for user in users:
        for song in rng.sample(songs, 8):
            models.UserLibrarySong.create_save(user_id=user.id, song_id=song.id)
        for song in rng.sample(songs, 12):
            models.SongLike.create_save(user_id=user.id, song_id=song.id)
        for artist in rng.sample(artists, 4):
            models.UserArtistFollowing.create_save(user_id=user.id, artist_id=artist.id)
        for title in rng.sample(PLAYLISTS, 4):
            playlist = models.Playlist.create_save(title=title, user_id=user.id)
            for song in rng.sample(songs, rng.randint(4, 7)):
                models.PlaylistSong.create_save(playlist_id=playlist.id, song_id=song.id)


def notes(models: Any, user: Any, rng: random.Random) -> None:
    for title in rng.sample(sorted(NOTES), 3):
        items = rng.sample(NOTES[title], rng.randint(3, 5))
        bought = "\n".join(f"- {item}: ${rng.randint(200, 4000) / 100:.2f}" for item in items)
        models.Note.create_save(user_id=user.id, title=f"{title} Expenses", content=bought)
    for title in rng.sample(sorted(NOTES), 3):
        items = rng.sample(NOTES[title], rng.randint(3, 5))
        models.Note.create_save(user_id=user.id, title=f"{title} List", content="\n".join(f"- {i}" for i in items))


def chores(models: Any, user: Any, rng: random.Random) -> None:
    for name in rng.sample(PROJECTS, 3):
        project = models.Project.create_save(user_id=user.id, name=name)
        models.ProjectCollaboratorLink.create_save(project_id=project.id, user_id=user.id)
        for i, title in enumerate(rng.sample(CHORES, 6)):
            models.Task.create_save(
                project_id=project.id,
                user_id=user.id,
                title=title,
                due_date=datetime(2023, 6, rng.randint(1, 28)),
                priority=PRIORITIES[i % 3],
                is_completed=i == 5,
                order_index=i,
            )


def alarms(models: Any, user: Any, rng: random.Random) -> None:
    for label, hour in zip(ALARMS, rng.sample(range(5, 23), len(ALARMS))):
        models.Alarm.create_save(
            user_id=user.id, time=f"{hour:02}:{rng.choice((0, 15, 30, 45)):02}", label=label, enabled=rng.random() < 0.8
        )


def files(models: Any, user: Any, rng: random.Random) -> None:
    home = user.home_directory_path
    for path in ("/", "/home/", home, f"{home}downloads/", f"{home}documents/"):
        if not models.Directory.exists(user_id=user.id, path=path):
            models.Directory.create_save(user_id=user.id, path=path)
    for folder in ("downloads", "documents"):
        for i in range(9):
            name = f"{rng.choice(NOUNS).lower()}_{i}.{rng.choice(EXTENSIONS)}"
            models.File.create_save(user_id=user.id, path=f"{home}{folder}/{name}", content=rng.choice(CHORES))


def acquaintances(models: Any, person: Person, user: Any, everybody: list[Person], rng: random.Random) -> None:
    others = [p for p in everybody if p is not person]
    rng.shuffle(others)
    for i, other in enumerate(others):
        kind = RELATIONSHIPS[i % len(RELATIONSHIPS)]
        person.contacts[other.email] = kind
        models.Contact.create_save(
            user_id=user.id,
            first_name=other.first_name,
            last_name=other.last_name,
            email=other.email,
            phone_number=other.phone_number,
            relationships=[kind],
        )


def requests(models: Any, person: Person, users: dict[str, Any], rng: random.Random) -> None:
    """Money that acquaintances ask for; some of it answered long ago."""
    own = users[person.email]
    for i, email in enumerate(sorted(person.contacts)):
        answered = {"denied_at": BEFORE} if i % 5 == 4 else {}
        models.PaymentRequest.create_save(
            sender_id=users[email].id,
            receiver_id=own.id,
            amount=float(rng.randint(5, 60)),
            description=rng.choice(("Dinner", "Tickets", "Taxi", "Groceries", "Gift")),
            **answered,
        )
