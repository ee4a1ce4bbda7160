"""Documentation names what there is: modules and their names, files, commands, groups of entry points."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import agentcascade
from agentcascade import registry
from agentcascade.cli import main
from agentcascade.config.load import CascadeConfig
from agentcascade.telemetry import attributes

ROOT = Path(__file__).parents[2]
OF_ROOT = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
OF_SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*OF_ROOT, *OF_SITE]
OF_USERS_GUIDE = [ROOT / "README.md", *OF_SITE]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
GROUPS = re.compile(r"^- `(\w+)`|^\| `(\w+)`(?: · `(\w+)`)?(?: · `(\w+)`)? \|", re.MULTILINE)
FOLDERS = (
    ROOT,
    *(ROOT / name for name in ("agentcascade", "agentcascade/routers", "routers/tuning", "tests", "tests/benchmarks")),
)
"""Where a path that a page names may begin."""
MADE = {
    *(
        f"reference/{name}.md"
        for name in ("cli", "configuration", "database", "errors", "http", "python", "python-modules", "telemetry")
    ),
    *(f"project/{name}.md" for name in ("examples", "architecture", "contributing", "changelog", "licenses")),
    "index.md",
}
"""Pages that the site's hooks make (`docs/hooks/generate.py`)."""
TELEMETRY = {name for name in vars(attributes).values() if isinstance(name, str)}
OF_USERS = re.compile(r"NEW|NAME|^/etc/|^(?:acme|runs|tuned|build)/|^(?:agentcascade|rule)\.yaml")
EXTENSIONS = "(?:yaml|db|jsonl|md|html|schema)"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of_generated(page: Path, link: str) -> str:
    """Where a link leads below docs/, whether or not there is a file."""
    path = os.path.normpath(page.parent / link)
    return os.path.relpath(path, ROOT / "docs")


def test_the_readme_sells_and_starts() -> None:
    text = text_of(ROOT / "README.md")
    assert len(text.split()) < 900
    first_screen = text.partition("\n## ")[0]
    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert first_screen.index("| ---") < first_screen.index("```")


def leads_somewhere(dotted: str) -> bool:
    """Whether a dotted path is a module, or a name in one."""
    module = dotted
    names: list[str] = []
    while module:
        try:
            target: Any = import_module(module)
        except ModuleNotFoundError:
            module, _, name = module.rpartition(".")
            names.insert(0, name)
        else:
            for name in names:
                target = getattr(target, name, None)
            return target is not None
    return False


def told_groups() -> set[str]:
    """Groups of entry points, by ARCHITECTURE.md's table of extension points."""
    table = text_of(ROOT / "ARCHITECTURE.md").partition("## Extension points")[2].partition("## ")[0]
    return {name for row in GROUPS.findall(table) for name in row if name}


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=name_of)
def test_dotted_paths_lead_somewhere(page: Path) -> None:
    text = re.sub(
        rf"\bagentcascade\.{EXTENSIONS}\b(?:\.json)?|\bclient\.agentcascade\.\w+|\.agentcascade\.\w+", "", text_of(page)
    )
    dotted = set(re.findall(r"(?<![\w/.])agentcascade(?:\.[A-Za-z_]\w*)+", text))
    dotted -= {f"agentcascade.{group}" for group in told_groups()} | TELEMETRY
    assert [path for path in sorted(dotted) if not leads_somewhere(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_are_there(page: Path) -> None:
    text = text_of(page)
    links = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)
    assert [
        path for path in links if not (page.parent / path).exists() and name_of_generated(page, path) not in MADE
    ] == []
    paths = re.findall(r"`([\w./-]*\w/|[\w./-]+\.(?:py|md|sh|toml|txt|yaml))`", text)
    paths += re.findall(r"python ((?:tests|examples)/[\w./-]+\.py)", text)
    assert page not in OF_ROOT or len(paths + links) > 5
    of_ours = {path for path in paths if not OF_USERS.search(path)}
    assert [path for path in sorted(of_ours) if not any((folder / path).exists() for folder in FOLDERS)] == []


@pytest.mark.parametrize("page", OF_USERS_GUIDE, ids=name_of)
def test_commands_are_there(page: Path) -> None:
    """Those in a page's code, alternatives (``keys create|list``, ``init | doctor``) each."""
    code = re.findall(r"```[\w ]*\n(.*?)\n```|`([^`\n]+)`", text_of(page), re.DOTALL)
    lines = [line for block in code for line in re.split(r"\n|; ", "".join(block))]
    told = [
        line.removeprefix("agentcascade ").split("#")[0]
        for line in lines
        if line.startswith("agentcascade ") and "--help" not in line
    ]
    context = click.Context(main)
    for line in told:
        group: click.Group = main
        for words in (part.split() for part in line.split(" | ")):
            for name in words[0].split("|"):
                command = group.get_command(context, name) or main.get_command(context, name)
                assert command is not None, line
                group = command if isinstance(command, click.Group) else group
            if command is group and len(words) > 1 and re.fullmatch(r"[a-z|-]+", words[1]):
                assert all(group.get_command(context, below) for below in words[1].split("|")), line


def test_every_group_that_is_told_is_looked_up_and_ours_are_told() -> None:
    code = "\n".join(text_of(path) for path in (ROOT / "agentcascade").rglob("*.py"))
    code += "\n".join(text_of(path) for folder in ("routers", "envs") for path in (ROOT / folder).rglob("*.py"))
    for group in told_groups():
        assert f'"{group}"' in code, group
    ours = re.findall(r'entry-points\."agentcascade\.(\w+)"', text_of(ROOT / "pyproject.toml"))
    assert {*ours} <= told_groups()
    assert all(registry.registered(group) for group in ours)


def test_public_names_of_the_guide_are_public() -> None:
    names = {name for page in OF_USERS_GUIDE for name in re.findall(r"(?<!\.)\bagentcascade\.(\w+)\(", text_of(page))}
    assert {"build", "wrap"} <= names <= set(agentcascade.__all__)


@pytest.mark.parametrize("page", OF_USERS_GUIDE, ids=name_of)
def test_configurations_of_the_guide_are_taken(page: Path) -> None:
    """Every block of YAML is part of a configuration: its keys exist and its values are possible."""
    for block in re.findall(r"^```yaml.*?\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL):
        settings = yaml.safe_load(block)
        settings.get("prompt", {}).pop("template", None)  # its files are the reader's
        CascadeConfig.load(None, **settings)
