"""Redaction: what must not be stored, what must stay, and that it ends soon."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.errors import ConfigError, MissingExtra
from agentcascade.redaction import RedactingRecorder, Redactor, presidio_hook
from agentcascade.types import Decision, Draft, EpisodeEnd, LoggedSample, ModuleRun, Recall, Shadow, Step, Trajectory

SECRETS = {
    "openai": "sk-proj-Ab3dEf6hIj9kLmNoPqRsTuVwXyZ012345_-x",
    "openai, old": "sk-1234567890abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL",
    "anthropic": "sk-ant-api03-abcDEF123-ghiJKL456_mnoPQR789",
    "ours": "ac-0123456789ab-" + "Zx_9" * 11,
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "github": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github, fine": "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwx",
    "slack": "xoxb-123456789012-abcdefGHIJKL",
    "huggingface": "hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789",
    "groq": "gsk_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789",
    "xai": "xai-aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789",
    "stripe": "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("around", ["the key is {}.", '{{"k": "{}"}}', "line\\n{}\\n", "({})", "K={}", "{}"])
def test_keys_of_known_providers_are_replaced(name: str, around: str) -> None:
    assert Redactor().text(around.format(SECRETS[name])) == around.format("[key]")


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [key]"),
        ("curl -H 'authorization: bearer opaquetoken'", "curl -H 'authorization: bearer [key]'"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [key]"),
        ("password=hunter2 next", "password=[key] next"),
        ("export OPENAI_API_KEY=abcd1234", "export OPENAI_API_KEY=[key]"),
        ('{"password": "two words, \\"one\\"", "user": "bo"}', '{"password": "[key]", "user": "bo"}'),
        ('{\\"apiKey\\": \\"abcdefgh\\", \\"n\\": 1}', '{\\"apiKey\\": \\"[key]\\", \\"n\\": 1}'),
        ("client_secret: 'x-y-z-w'", "client_secret: '[key]'"),
        ("x-api-key: 0123456789", "x-api-key: [key]"),
        ("postgresql://bo:pa55@db.example.com/x", "postgresql://[key]@db.example.com/x"),
        ("redis://:pa55@cache:6379", "redis://[key]@cache:6379"),
        (
            "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n1234+/=\n-----END RSA PRIVATE KEY-----\nb",
            "a\n[key]\nb",
        ),
        ('"-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----\\n"', '"[key]\\n"'),
        ("write to bob.o'neil+x@mail.example.co.uk, please", "write to bob.o'[email], please"),
        ("from jörg@exämple.de", "from [email]"),
        ("line\\nbob@example.com", "line\\n[email]"),
        ("CORP\\anna@example.com", "CORP\\[email]"),
        ("<bob@example.com>", "<[email]>"),
        ("call +1 (212) 555-1234 now", "call [phone] now"),
        ("call +442079460958.", "call [phone]."),
        ("tel:+49 30 12345678", "tel:[phone]"),
        ("+33 6 12 34 56 78", "[phone]"),
        ("06 12 34 56 78", "[phone]"),
        ("020 7946 0958", "[phone]"),
        ("(212) 555-1234", "[phone]"),
        ("212-555-1234, 212.555.1234", "[phone], [phone]"),
        ("1-800-555-0199", "[phone]"),
    ],
)
def test_other_secrets_and_addresses_are_replaced(text: str, redacted: str) -> None:
    assert Redactor().text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "order #W2378156 of 2024-05-15T15:00:00+0200, 2024-05-15 15:00:00",
        "product 4823910231, item 4202497723, tracking 843053527748",
        "hosts 192.168.100.200, 10.12.0.44:8080 and fe80::1",
        "550e8400-e29b-41d4-a716-446655440000",
        "$1,234.56 or 1.234.567,89 EUR or +12.3456789 or -0.5",
        "take mug 1 from desk 2, go to cabinet 10",
        "100 200 3000 400 555 1234",
        "version 2.11.1234, npm react@18.2.0, sklearn sk-learn-contrib-something",
        "https://example.com/a:b/c@d and http://host:8080/x",
        "the bearer of this certificate has the secret of the key: value",
        '{"type": "object", "properties": {"password": {"type": "string"}, "max_tokens": 4096}}',
        "password: string, password: null",
        "def f(api_key: str) -> None: ...",
        "monkey: banana, keychain 1, tokens: 1234567",
        "ISBN 978-3-16-148410-0, card 4111 1111 1111 1111",
        "pk_customer_order_line_items_2 and npm_config_user_agent_for_everyone",
    ],
)
def test_what_agents_act_on_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_each_kind_can_be_turned_off() -> None:
    text = "sk-proj-Ab3dEf6hIj9kLmNoPq bob@example.com +442079460958"
    assert Redactor(keys=False, emails=False, phones=False).text(text) == text
    assert Redactor(keys=False).text(text) == "sk-proj-Ab3dEf6hIj9kLmNoPq [email] [phone]"
    assert Redactor(emails=False, phones=False).text(text) == "[key] bob@example.com +442079460958"


def test_own_patterns_come_first_and_leave_placeholders_alone() -> None:
    redactor = Redactor(patterns={"staff": r"\w+@acme\.com", "word": r"ke\w|z*"})
    once = redactor.text("bob@acme.com wrote to amy@example.com about the keg, [key]")
    assert once.startswith("[staff]")
    assert "[email]" in once
    assert once.endswith("the [word], [key]")
    assert redactor.text(once) == once


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        ({"order": "#W(["}, ["redaction.patterns.order", "'#W(['", "not a regular expression"]),
        ({"a]b": "x"}, ["'a]b'"]),
    ],
)
def test_a_bad_pattern_is_named(patterns: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        Redactor(patterns=patterns)
    assert all(word in str(raised.value) for word in words)


PIECES = st.sampled_from(
    [
        *SECRETS.values(),
        *(
            "sk-",
            "a@b.co",
            "@",
            ".",
            "-",
            "_",
            "\\n",
            '"',
            "'",
            "+",
            "(",
            ")",
            " ",
            "1",
            "212-555-1234",
            "+1 212 555 1234",
        ),
        *(
            "password=",
            'api_key": "',
            "Bearer ",
            "://u:p",
            "[key]",
            "[email]",
            "[",
            "]",
            "[order]",
            "#W12",
            "eyJ",
            "\n",
        ),
        *(
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
            "Authorization: Bearer ",
            "token: ",
            "06 12 34 56 78",
        ),
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=12).map("".join)


@given(TEXTS)
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    redactor = Redactor(patterns={"order": r"#W\d+"})
    once = redactor.text(text)
    assert redactor.text(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        *("sk-", "sk--", "eyJaaaaaaaaa.", "-eyJaaaaaaaa", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", 'password="'),
        *("a@", "a@a.", "@", "://a:", "+1 ", "(212) ", "0", "bearer a", "ghp_a-", "\\n", "212-555-1234-", "+12 34 "),
        *("key", 'secret\\"', "[key]", " 01 23 45 67 8", "a", "-", "password: "),
    ],
)
def test_a_megabyte_of_anything_takes_less_than_a_second(piece: str) -> None:
    text = (piece * (1_000_000 // len(piece))) + "@ key bearer"
    redactor = Redactor(patterns={"order": r"#W\d+"})
    best = min(_seconds(redactor, text) for _ in range(2))
    assert best < 1.0


def _seconds(redactor: Redactor, text: str) -> float:
    started = time.process_time()
    redactor.text(text)
    return time.process_time() - started


def test_values_are_redacted_all_the_way_down() -> None:
    value = {"a": ["bob@example.com", ("+442079460958", 3, None)], "bob@example.com": True, "password": "short"}
    assert Redactor().value(value) == {"a": ["[email]", ("[phone]", 3, None)], "[email]": True, "password": "[key]"}


DECISION = Decision(
    episode="bob@example.com-1",
    namespace="bob@example.com",
    step=2,
    goal="mail bob@example.com",
    mode="cascade",
    answered_by="student",
    reason="no action in 'bob@example.com'",
    votes={"mail bob@example.com": 2, "mail amy@example.com": 1, "wait": 1},
    action="mail bob@example.com",
    failures=("student: Timeout: key sk-proj-Ab3dEf6hIj9kLmNoPq",),
    demonstrations=("tr_1:0-2",),
    dollars=Decimal("0.25"),
)


def test_a_decision_loses_its_contents_and_keeps_ids_and_money() -> None:
    redacted = Redactor().decision(DECISION)
    assert redacted.votes == {"mail [email]": 3, "wait": 1}
    assert (redacted.goal, redacted.action) == ("mail [email]", "mail [email]")
    assert redacted.reason == "no action in '[email]'"
    assert redacted.failures == ("student: Timeout: key [key]",)
    kept = {"episode", "namespace", "id", "dollars", "demonstrations", "step", "created_at"}
    assert redacted.model_dump(include=kept) == DECISION.model_dump(include=kept)
    assert Decision.model_validate(redacted.model_dump()) == redacted


def test_a_goal_still_fits_its_column() -> None:
    goal = "a@b.co " * 42
    assert len(Redactor().decision(DECISION.model_copy(update={"goal": goal[:300]})).goal) <= 300


def test_a_trajectory_and_the_rest_lose_their_contents() -> None:
    redactor, mail, at = Redactor(), "bob@example.com", datetime(2026, 1, 1, tzinfo=UTC)
    trajectory = redactor.trajectory(
        Trajectory(
            id=f"tr-{mail}",
            namespace=mail,
            goal=mail,
            plan=mail,
            steps=(Step(observation=mail, reasoning=mail, action=mail),),
            success=True,
            model=mail,
            metadata={"episode": mail, "notes": [mail], "api_key": "abc"},
        )
    )
    assert (trajectory.id, trajectory.namespace, trajectory.model) == (f"tr-{mail}", mail, mail)
    assert (trajectory.goal, trajectory.plan) == ("[email]", "[email]")
    assert trajectory.steps == (Step(observation="[email]", reasoning="[email]", action="[email]"),)
    assert trajectory.metadata == {"episode": mail, "notes": ["[email]"], "api_key": "[key]"}
    shadow = redactor.shadow(
        Shadow(
            decision="de_1",
            episode=mail,
            step=0,
            teacher_action=mail,
            samples=(LoggedSample(action=mail, text=mail, invalid=mail),),
            failures=(mail,),
        )
    )
    assert shadow.episode == mail
    assert json.dumps(shadow.model_dump(mode="json", exclude={"episode"})).count(mail) == 0
    draft = redactor.draft(
        Draft(namespace=mail, episode=mail, position=0, goal=mail, mode="collect", observation=mail, action=mail)
    )
    assert (draft.namespace, draft.episode) == (mail, mail)
    assert (draft.goal, draft.observation, draft.action) == ("[email]",) * 3
    end = redactor.end(EpisodeEnd(episode=mail, goal=mail, mode="collect", success=None, steps=1, started_at=at))
    assert (end.episode, end.goal) == (mail, "[email]")


class Kept:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.closed = False
        self.record = self.record_shadow = self.record_draft = self.record_end = self.record_recall = self.items.append

    def flush(self, seconds: float | None = None) -> bool:
        self.items.append("flushed")
        return True

    def close(self, seconds: float | None = None) -> None:
        self.closed = True


def test_the_recorder_behind_gets_nothing_unredacted() -> None:
    kept = Kept()
    recorder = RedactingRecorder(kept, Redactor())
    recorder.record(DECISION)
    recorder.record_shadow(Shadow(decision="de_1", episode="e", step=0, teacher_action="bob@example.com"))
    recorder.flush()
    recorder.close()
    assert [getattr(i, "action", None) or getattr(i, "teacher_action", i) for i in kept.items] == [
        "mail [email]",
        "[email]",
        "flushed",
    ]
    assert kept.closed


@pytest.mark.parametrize(
    "long",
    [
        {"goal": "x" * 9000},
        {"action": "x" * 9000},
        {"reason": "x" * 9000},
        {"failures": ("x" * 5000, "y" * 5000)},
        {"votes": {"x" * 9000: 1}},
        {"struck": {"x" * 9000: 1}},
    ],
)
def test_a_decision_with_a_long_text_is_not_redacted_before_the_answer(long: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"episode": "e", "step": 0, "mode": "cascade", "answered_by": "student", "reason": "r"}
    assert Redactor().is_quick(Decision(**fields))
    assert not Redactor().is_quick(Decision(**fields | long))


def test_recalls_are_redacted_down_to_what_failed() -> None:
    run = ModuleRun(module="topic", asked="high", used="low", failures=("no answer for bob@example.com",))
    made = Recall(
        history="h",
        question="who is bob@example.com?",
        text="- bob@example.com",
        runs=(run,),
        left_out=("a@example.com",),
    )
    kept = Kept()
    RedactingRecorder(kept, Redactor()).record_recall(made)
    (stored,) = kept.items
    assert "example.com" not in stored.model_dump_json()
    assert (stored.id, stored.question, stored.text) == (made.id, "who is [email]?", "- [email]")
    assert stored.runs == (run.model_copy(update={"failures": ("no answer for [email]",)}),)


def test_a_failing_hook_withholds_contents_and_fails_no_step(caplog: pytest.LogCaptureFixture) -> None:
    def broken(text: str) -> str:
        raise RuntimeError("the service is down")

    kept = Kept()
    RedactingRecorder(kept, Redactor(hooks=[broken])).record(DECISION)
    (stored,) = kept.items
    assert "example.com" not in stored.model_dump_json(exclude={"episode", "namespace"})
    assert stored.votes == {"[withheld]": 4}
    assert stored.dollars == DECISION.dollars
    assert "the service is down" in caplog.text


def fake_presidio(monkeypatch: pytest.MonkeyPatch, *models: str) -> list[dict[str, Any]]:
    """The shape of the real package's interface; it finds Bob. Returns the engine's configurations."""
    made: list[dict[str, Any]] = []

    class AnalyzerEngine:
        def __init__(self, nlp_engine: Any = None) -> None:
            made.append(nlp_engine)

        def get_supported_entities(self, language: str | None = None) -> list[str]:
            return ["PERSON", "DATE_TIME", "EMAIL_ADDRESS"]

        def analyze(self, text: str, language: str, entities: list[str], score_threshold: float) -> list[Any]:
            assert (language, entities) == ("en", ["PERSON"])
            found = [(text.find("Bob Dole"), 8, 0.85), (text.find("Bob"), 3, 0.85), (text.find("email"), 5, 0.9)]
            return [
                SimpleNamespace(start=at, end=at + size, entity_type="PERSON", score=score)
                for at, size, score in found
                if at >= 0 and score >= score_threshold
            ]

    class NlpEngineProvider:
        def __init__(self, nlp_configuration: dict[str, Any]) -> None:
            self.configuration = nlp_configuration

        def create_engine(self) -> dict[str, Any]:
            return self.configuration

    package, engines = ModuleType("presidio_analyzer"), ModuleType("presidio_analyzer.nlp_engine")
    package.AnalyzerEngine, engines.NlpEngineProvider = AnalyzerEngine, NlpEngineProvider  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "presidio_analyzer", package)
    monkeypatch.setitem(sys.modules, "presidio_analyzer.nlp_engine", engines)
    monkeypatch.setattr("agentcascade.redaction.presidio.find_spec", lambda name: name in models or None)
    return made


def test_presidio_replaces_names_on_the_largest_installed_model(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake_presidio(monkeypatch, "en_core_web_sm", "en_core_web_md")
    redactor = Redactor(presidio=True)
    once = redactor.text("Bob Dole wrote from bob@example.com")
    assert once == "[person] wrote from [email]"
    assert redactor.text(once) == once
    assert made[0]["models"] == [{"lang_code": "en", "model_name": "en_core_web_md"}]


def test_presidio_without_a_model_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_presidio(monkeypatch)
    with pytest.raises(ConfigError, match="spacy download en_core_web_lg"):
        Redactor(presidio=True)


def test_a_missing_presidio_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtra, match=r"redaction\.presidio needs presidio-analyzer: pip install"):
        Redactor(presidio=True)


def test_the_real_presidio_finds_credit_cards_by_its_patterns() -> None:
    presidio = pytest.importorskip("presidio_analyzer")
    engines = pytest.importorskip("presidio_analyzer.nlp_engine")
    nothing = engines.NoOpNlpEngine(models=[{"lang_code": "en", "model_name": "none"}])
    hook = presidio_hook(presidio.AnalyzerEngine(nlp_engine=nothing))
    text = "card 4111 1111 1111 1111 for order 4823910231 on 2024-05-15"
    assert Redactor(hooks=[hook]).text(text) == "card [credit_card] for order 4823910231 on 2024-05-15"


def test_a_pattern_that_takes_too_long_withholds_what_it_was_to_redact(caplog: pytest.LogCaptureFixture) -> None:
    """In the event loop, the standard library's engine would take 2⁴⁰ steps on this tool's output."""
    kept = Kept()
    recorder = RedactingRecorder(kept, Redactor(patterns={"words": r"(?:a|aa)+$"}))
    draft = Draft(
        namespace="n", episode="e", position=0, goal="g", mode="collect", observation="a" * 60 + "!", action="go"
    )
    recorder.record_draft(draft)
    assert kept.items[0].observation == "[withheld]"
    assert "repetitions inside repetitions" in caplog.text


FRAGMENTS = [
    *("sk-", "AKIA", "AIza", "eyJ", "ghp_", "xoxb-", "Ab3dEf6hIj9kLmNoPq", "ABCDEFGH12345678", ".", "_", "-", "A"),
    *("password", "api_key", "token", "Bearer ", "Authorization", "=", ": ", '"', "'", "\\", "n", " ", "\n", "\t"),
    *("+49 30 1234567", "(030)", "555-123-4567", "0171 1234 567", "(", ")", "1", "ada", "@", "mail.example.com"),
    *("https://", "me:pw@", "-----BEGIN PRIVATE KEY-----"),
]


@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=5).map("".join), max_size=4))
@settings(max_examples=200)
def test_texts_that_are_clean_together_are_clean_alone(texts: list[str]) -> None:
    redactor = Redactor()
    if redactor.is_clean(texts):
        assert [redactor.text(text) for text in texts] == texts


def test_what_a_log_usually_says_is_clean_and_own_patterns_are_asked_text_by_text() -> None:
    texts = ["request", "POST", "/v1/chat/completions", "req_0f3a5b6c7d8e9f0a1b2c", "12.5", "key_1"]
    assert Redactor().is_clean(texts)
    assert not Redactor().is_clean([*texts, "ada@example.com"])
    assert not Redactor(patterns={"number": r"^\d+$"}).is_clean(texts)
    assert not Redactor(hooks=[str]).is_clean(texts)
