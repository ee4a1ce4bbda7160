from collections.abc import Callable
from pathlib import Path

import pytest

from agentcascade.config.load import CascadeConfig, variants
from agentcascade.errors import ConfigError


@pytest.fixture
def yaml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text):
        path = tmp_path / "agentcascade.yaml"
        path.write_text(text)
        return path

    return write


def test_keywords_win_over_environment_over_file(yaml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = yaml("mode: student\nretrieval: {k: 1, window_after: 7}\nseed: 3\n")
    monkeypatch.setenv("AGENTCASCADE_RETRIEVAL__K", "2")
    monkeypatch.setenv("AGENTCASCADE_SEED", "4")
    config = CascadeConfig.load(path, seed=5)
    assert (config.mode, config.retrieval.k, config.retrieval.window_after, config.seed) == ("student", 2, 7, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retreival: {k: 3}", "unknown key 'retreival': did you mean 'retrieval'"),
        ("retrieval: {kk: 3}", "unknown key 'retrieval.kk': did you mean 'k'"),
        ("teacher: {name: a, temprature: 1}", "'teacher.temprature': did you mean 'temperature'"),
        ("retrieval: {k: -1}", r"retrieval.k: .*greater than or equal to 0 \(got -1\)"),
        ("mode: shadwo", "mode: .*'teacher'"),
        ("- a", "must hold a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_mistakes_are_named_with_their_fix(yaml: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CascadeConfig.load(yaml(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ladder: []", "ladder is empty: name its rungs"),
        ("ladder:", "a ladder is a list of rungs"),
        ("ladder: {model: a}", "a ladder is a list of rungs"),
        ("ladder: a", "a ladder is a list of rungs"),
        ("ladder: [a, {model: b, router: {stuck: {}}}, c]", r"ladder\.1\.router\.stuck is of .*router\.stuck of"),
        ("ladder: [a, {model: b, router: {latch: auto}}, c]", r"ladder\.1\.router\.latch is of the whole run"),
        ("student: {name: a}\nstudents: [{name: b, router: {latch: auto}}]", r"students\.0\.router: .*latch is of the"),
    ],
)
def test_a_ladder_that_is_none_and_a_rungs_settings_that_nothing_would_read(
    yaml: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        CascadeConfig.load(yaml(text))


def test_a_cascade_may_leave_the_ladder_of_the_others() -> None:
    config = CascadeConfig.load(
        ladder=["a", {"model": "b", "router": {"name": "agreement"}}, "c"],
        router={"latch": "auto"},
        cascades={"plain": {"ladder": [], "teacher": {"name": "t"}}, "other": {}},
    )
    made = variants(config)
    assert made["plain"].student is None
    assert made["plain"].teacher is not None
    assert made["plain"].teacher.name == "t"
    assert (made["other"].router.latch, made["other"].students[0].router.latch) == ("auto", "never")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="agentcascade init"):
        CascadeConfig.load(tmp_path / "none.yaml")


def test_a_typo_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTCASCADE_RETREIVAL__K", "2")
    with pytest.raises(ConfigError, match="did you mean 'retrieval'"):
        CascadeConfig.load()


def test_keys_do_not_show(yaml: Callable[[str], Path]) -> None:
    config = CascadeConfig.load(yaml("teacher: {name: a, api_key: sk-verysecret123}"))
    assert "verysecret" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        CascadeConfig.load(yaml("teacher: {name: a, api_key: [sk-verysecret123]}"))
    assert "verysecret" not in str(caught.value)


def test_numbers_in_router_options_come_from_the_environment_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTCASCADE_ROUTER__NAME", "threshold")
    monkeypatch.setenv("AGENTCASCADE_ROUTER__OPTIONS__N", "5")
    monkeypatch.setenv("AGENTCASCADE_ROUTER__OPTIONS__THRESHOLD", "0.8")
    assert CascadeConfig.load().router.options == {"n": 5, "threshold": 0.8}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("students: [{name: a}, {name: b, temprature: 1}]", r"'students\.1\.temprature': did you mean 'temperature'"),
        ("students: [{name: a, router: {nme: x}}]", r"'students\.0\.router\.nme': did you mean 'name'"),
        ("memory: {models: {small: {nam: a}}}", r"'memory\.models\.small\.nam': did you mean 'name'"),
        ("cascades: {a: {students: [{nme: a}]}}", r"cascades\.a.*'students\.0\.nme': did you mean 'name'"),
        ("cascades: {a: {retention: {decisions: 1}}}", "'retention' belongs to the whole configuration"),
    ],
)
def test_mistakes_inside_lists_and_mappings_are_named_too(yaml: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variants(CascadeConfig.load(yaml(text)))


def test_another_name_takes_the_options_and_the_price_of_the_old_one_away(
    yaml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
router: {name: threshold, options: {n: 5, threshold: 0.8}}
student: {name: openai/a, price: {input: 1, output: 2}, api_base: http://here, options: {top_k: 3}}
cascades:
  same: {router: {options: {n: 3}}, student: {temperature: 0.5}}
  other: {router: {name: random, options: {p: 0.3}}, student: {name: openai/b}}
"""
    made = variants(CascadeConfig.load(yaml(text)))
    assert made["same"].router.options == {"n": 3, "threshold": 0.8}
    assert made["other"].router.options == {"p": 0.3}
    same, other = made["same"].student, made["other"].student
    assert same is not None
    assert other is not None
    assert same.price is not None
    assert (other.price, other.options, other.api_base) == (None, {}, "http://here")
    monkeypatch.setenv("AGENTCASCADE_STUDENT__NAME", "openai/c")
    renamed = CascadeConfig.load(yaml(text)).student
    assert renamed is not None
    assert renamed.price is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENTCASCADE_PORT", "tcp://10.0.0.7:8080"),
        ("AGENTCASCADE_SERVICE_HOST", "10.0.0.7"),
        ("AGENTCASCADE_SERVICE_PORT", "8080"),
        ("AGENTCASCADE_SERVICE_PORT_HTTP", "8080"),
        ("AGENTCASCADE_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
        ("AGENTCASCADE_PORT_8080_TCP_ADDR", "10.0.0.7"),
        ("AGENTCASCADE_SERVER_PORT_8080_TCP_PROTO", "tcp"),
        ("AGENTCASCADE_ROUTER_SERVICE_HOST", "10.0.0.8"),
    ],
)
def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert CascadeConfig.load().server.port == 8080
    assert not caplog.records


def test_a_variable_near_no_key_is_passed_over_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AGENTCASCADE_ZZYZX", "1")
    monkeypatch.setenv("AGENTCASCADE_PORT", "9000")
    CascadeConfig.load()
    assert "AGENTCASCADE_ZZYZX" in caplog.text
    assert "AGENTCASCADE_SERVER__PORT" in caplog.text
