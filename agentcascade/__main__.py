"""Command line as a process of its own."""

from __future__ import annotations

from agentcascade._util.garbage import spare_modules


def run() -> None:
    spare_modules()  # before the command line's modules are loaded
    from agentcascade.cli import main

    main()


if __name__ == "__main__":
    run()
