import pytest

from agentcascade.config import CascadeConfig
from agentcascade.errors import ConfigError


@pytest.fixture
def yaml(tmp_path):
    def write(text):
        path = tmp_path / "agentcascade.yaml"
        path.write_text(text)
        return path

    return write


def test_keywords_win_over_environment_over_file(yaml, monkeypatch):
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
def test_mistakes_are_named_with_their_fix(yaml, text, message):
    with pytest.raises(ConfigError, match=message):
        CascadeConfig.load(yaml(text))


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="agentcascade init"):
        CascadeConfig.load(tmp_path / "none.yaml")


def test_a_typo_in_the_environment_is_an_error(monkeypatch):
    monkeypatch.setenv("AGENTCASCADE_RETREIVAL__K", "2")
    with pytest.raises(ConfigError, match="did you mean 'retrieval'"):
        CascadeConfig.load()


def test_keys_do_not_show(yaml):
    config = CascadeConfig.load(yaml("teacher: {name: a, api_key: sk-verysecret123}"))
    assert "verysecret" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        CascadeConfig.load(yaml("teacher: {name: a, api_key: [sk-verysecret123]}"))
    assert "verysecret" not in str(caught.value)


def test_numbers_in_router_options_come_from_the_environment_as_numbers(monkeypatch):
    monkeypatch.setenv("AGENTCASCADE_ROUTER__NAME", "threshold")
    monkeypatch.setenv("AGENTCASCADE_ROUTER__OPTIONS__N", "5")
    monkeypatch.setenv("AGENTCASCADE_ROUTER__OPTIONS__THRESHOLD", "0.8")
    assert CascadeConfig.load().router.options == {"n": 5, "threshold": 0.8}
