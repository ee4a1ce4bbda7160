"""Secrets by value: whatever form a provider echoes a key in, it reaches neither errors nor records nor logs."""

from __future__ import annotations

import base64
import html
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentcascade._util import known_secrets
from agentcascade._util.known_secrets import hide, register, register_fields
from agentcascade.errors import describe
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.openai import OpenAIModel
from agentcascade.redaction.redactor import Redactor
from agentcascade.server.errors import invalid
from agentcascade.storage.engine import new_engine
from agentcascade.telemetry.logs import StructuredFormatter

KEY = "vL9+kq/Zt7=mPx2 wQ"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(known_secrets, "_registered", {})
    monkeypatch.setattr(known_secrets, "_configured", {})
    monkeypatch.setattr(known_secrets, "FRESH_SECONDS", 0.0)
    yield
    known_secrets._forms.cache_clear()


def forms(key: str) -> list[str]:
    encoded = [base64.b64encode(f"{'u' * n}:{key}".encode()).decode() for n in range(3)]
    encoded += [base64.urlsafe_b64encode(f"{'u' * n}{key}:tail".encode()).decode() for n in range(3)]
    return [
        *(key, quote(key, safe=""), quote_plus(key), json.dumps(key), repr(key), key.encode().hex()),
        *(f"{key[:10]}...", f"{key[:8]}********{key[-4:]}", f"***{key[-8:]}"),
        *encoded,
    ]


def leaked(text: str, key: str = KEY) -> bool:
    """Whether eight characters of the key, or of its base64, are still there in a row."""
    encoded = [base64.b64encode(b"\0" * n + key.encode()).decode()[4:-4] for n in range(3)]
    wholes = [key, quote(key, safe=""), key.encode().hex(), *encoded]
    return any(whole[i : i + 8] in text for whole in wholes for i in range(len(whole) - 7))


@pytest.mark.parametrize("form", forms(KEY))
def test_a_key_is_removed_whatever_its_form(form: str) -> None:
    assert leaked(form) or "*" in form or "..." in form
    register(KEY)
    for text in (hide(f"Incorrect API key provided: {form}. Try"), describe(ValueError(f"401 {form}"))):
        assert not leaked(text), text
        assert "[key]" in text or "[redacted]" in text
    assert not leaked(Redactor().text(f"x {form} y"))
    assert not leaked(json.dumps(invalid(f"refused: {form}").problem.body()))


SPECIAL = "Q7w+e/R9t=Y2u&I4o<P6a\"s8D'fG1hJ5"


@pytest.mark.parametrize(
    "form",
    [
        *(quote(SPECIAL), quote(SPECIAL, safe="").replace("%2F", "%2f").replace("%3D", "%3d").replace("%2B", "%2b")),
        *(quote(quote(SPECIAL, safe=""), safe=""), SPECIAL.encode().hex().upper(), json.dumps(json.dumps(SPECIAL))),
        json.dumps(SPECIAL).replace("/", "\\/"),
        json.dumps(SPECIAL).replace("<", "\\u003c").replace("&", "\\u0026").replace("'", "\\u0027"),
        *(html.escape(SPECIAL), html.escape(SPECIAL, quote=False), html.escape(SPECIAL).replace("&#x27;", "&apos;")),
        html.escape(SPECIAL).replace("&quot;", "&#34;").replace("&#x27;", "&#39;").replace("+", "&#43;"),
    ],
)
def test_nothing_is_left_of_a_key_that_is_escaped(form: str) -> None:
    register(SPECIAL)
    said = hide(f"refused: {form}. Try")
    assert not any(
        part in said for part in ("Q7w", "R9t", "Y2u", "I4o", "P6a", "s8D", "fG1h", SPECIAL[:4].encode().hex())
    )
    assert said.startswith("refused: ")
    assert said.endswith(" Try")


@pytest.mark.parametrize(
    "key", ["/k3yStarts+With/aSlash", "dummy-is-how-mine-begins", "1234567890123456", "./x/9-p4ssw0rd"]
)
def test_a_key_that_was_given_is_one_whatever_it_looks_like(key: str) -> None:
    register(key)
    assert hide(f"bad key {key}!") == "bad key [key]!"


def test_addresses_hold_keys_too() -> None:
    register_fields(
        {"api_base": "https://tok3n-of-user@gw.example/v1/9f8e7d6c5b4a39281706ab/chat?api_key=in-query-77&n=10000001"}
    )
    said = hide("tok3n-of-user 9f8e7d6c5b4a39281706ab in-query-77 https://gw.example/v1/chat 10000001")
    assert said == "[key] [key] [key] https://gw.example/v1/chat 10000001"


@example(key="A" * 16, other="0")
@given(st.text(alphabet=st.characters(codec="ascii", min_codepoint=33), min_size=16, max_size=80), st.text(max_size=30))
def test_any_key_is_removed_and_other_texts_stay(key: str, other: str) -> None:
    known_secrets._registered.clear()
    register(key)
    if known_secrets._is_secret(key):
        assert key not in hide(f"{other}{key}{other}")
    known_secrets._registered.clear()
    assert hide(other) == other


def test_keys_of_the_environment_and_passwords_of_its_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "SOME_API_KEY": "env-key-0001",
        "AWS_SECRET_ACCESS_KEY": "aws/secret0002",
        "GITHUB_TOKEN": "ghx-token0003",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:pass-0004@host/db")
    monkeypatch.setenv("AWS_SECRET_KEY", "/bPxRfiCYEXAMPLEKEY+wJalrXUtnFEMIK7MDENG")
    monkeypatch.setenv("SENTRY_DSN", "https://abc123def456@ingest.example/42")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-honey=honey-key-0007,authorization=Basic%20aBc0008dEf0008=")
    assert hide("/bPxRfiCYEXAMPLEKEY+wJalrXUtnFEMIK7MDENG abc123def456") == "[key] [key]"
    assert hide("honey-key-0007 aBc0008dEf0008=") == "[key] [key]"
    monkeypatch.setenv("MONKEY", "banana-0005")
    monkeypatch.setenv("SSH_KEY", "/home/me/.ssh/id_0006")
    said = hide("env-key-0001 aws/secret0002 ghx-token0003 pass-0004 banana-0005 /home/me/.ssh/id_0006")
    assert said == "[key] [key] [key] [key] banana-0005 /home/me/.ssh/id_0006"


def test_a_word_is_removed_as_a_word_and_what_is_short_not_at_all() -> None:
    register("postgres", "none", None, "x", "12345678", "true")
    assert hide("postgres at postgresql://h, none, 12345678") == "[key] at postgresql://h, none, 12345678"


def test_headers_of_a_models_options_are_secrets_too() -> None:
    register_fields(
        {
            "extra_headers": {"Authorization": "Bearer gateway-0001", "x-title": "an app of mine"},
            "api_version": "2024-06-01",
        }
    )
    assert hide("gateway-0001 an app of mine 2024-06-01") == "[key] an app of mine 2024-06-01"


@pytest.mark.parametrize("url", [
    "postgresql://h/db?user=me&password=hunter2hunter2",
    "postgresql://h/db?sslpassword=hunter2hunter2&sslmode=require",
    "postgresql+psycopg://me:hunter2hunter2@h/db",
    "postgresql://:hunter2hunter2@h/db",
    "host=h password=hunter2hunter2 dbname=x",
    "host=h password='hunter2hunter2' dbname=x",
    "https://h/v1?api_key=hunter2hunter2&v=1",
    "https://h/v1?X-Amz-Signature=hunter2hunter2&v=1",
    "redis://h?access_token=hunter2hunter2#a",
])  # fmt: skip
def test_no_url_tells_its_secret(url: str) -> None:
    assert "hunter2" not in describe(ConnectionError(f"cannot reach {url}: refused"))


def test_tracebacks_in_logs_hold_no_key() -> None:
    register(KEY)
    try:
        raise ValueError(f"the provider said {KEY}")
    except ValueError as error:
        record = logging.LogRecord("agentcascade", 40, "f", 1, "failed: %s", (error,), (type(error), error, None))
    assert not leaked(StructuredFormatter().format(record))


def test_keys_of_calls_take_no_place_of_configured_ones_and_those_in_use_stay() -> None:
    in_use, unused = "in-use-by-one-00001", "not-used-again-0002"
    OpenAIModel("openai/m", api_key=KEY)
    LiteLLMModel("openai/m", options={"extra_headers": {"authorization": "Bearer gateway-0001"}})
    engine = new_engine("postgresql://me:hunter2hunter2@h/db")
    engine.dispose()
    register(in_use, unused)
    for number in range(3 * known_secrets.MOST):
        register(f"sk-another-{number:010}", in_use, KEY)
    assert len(known_secrets._registered) <= 1.1 * known_secrets.MOST
    for secret in (KEY, "gateway-0001", "hunter2hunter2", in_use):
        assert hide(f"no such key: {secret}") == "no such key: [key]"
    assert hide(unused) == unused, "of calls no more are held than are bounded"
    for number in range(2 * known_secrets.MOST):
        OpenAIModel("openai/m", api_key=f"sk-tenants-own-{number:010}")
    assert len(known_secrets._configured) <= 1.1 * known_secrets.MOST
