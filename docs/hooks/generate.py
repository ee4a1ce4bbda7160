"""Pages of the documentation that are made from the code: MkDocs hook, see `mkdocs.yml`."""

from __future__ import annotations

import json
from typing import Any

import command_line
import configuration
import database
import error_catalogue
import http_api
import project
import python_api
import telemetry_names
from mkdocs.structure.files import File, Files

from agentcascade.config.schema import configuration_schema

PAGES = {
    "reference/cli.md": command_line.page,
    "reference/configuration.md": configuration.page,
    "reference/database.md": database.page,
    "reference/errors.md": error_catalogue.page,
    "reference/http.md": http_api.page,
    "reference/python.md": python_api.page,
    "reference/python-modules.md": python_api.modules_page,
    "reference/telemetry.md": telemetry_names.page,
}


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Add what is generated to what lies under docs/."""
    made = {name: page() for name, page in PAGES.items()} | project.pages()
    made["agentcascade.schema.json"] = json.dumps(configuration_schema(), indent=1, sort_keys=True)
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files
