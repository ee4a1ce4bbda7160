"""Worker processes of one server: they end with their parent, and any of them answers for the metrics of all.

Each listens at a Unix socket in a folder that the parent made, and says what it has counted; who is asked for
``/metrics`` asks the others, and gives each series the label ``worker``. So every series only ever grows, whichever
worker answers, and a sum over workers is the server's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

FOLDER = "AGENTCASCADE_WORKERS_FOLDER"
SECONDS = 2.0
"""In which another worker must have answered."""
log = logging.getLogger("agentcascade.server")


def end_with_parent() -> None:
    """Stop this worker when its parent has died: it would go on serving, and hold the port."""
    from multiprocessing import connection, parent_process

    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="agentcascade-parent", daemon=True).start()


class WorkerMetrics:
    """Metrics of all workers. Without a folder there is one process, whose page is given as it is."""

    def __init__(self, render: Callable[[], tuple[bytes, str]], folder: Path | None = None) -> None:
        self._render = render
        self._folder = folder
        self.name = str(os.getpid())

    @classmethod
    def of_environment(cls, render: Callable[[], tuple[bytes, str]]) -> WorkerMetrics:
        named = os.environ.get(FOLDER)
        return cls(render, Path(named) if named else None)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer the other workers until the end of the block."""
        if self._folder is None or sys.platform == "win32":
            yield
            return
        path = self._folder / self.name
        server = await asyncio.start_unix_server(self._answer, path)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(self._render()[0])
            writer.write_eof()
            await writer.drain()
        writer.close()

    async def page(self) -> tuple[bytes, str]:
        """The metrics of all workers as (text, media type)."""
        own_page, media_type = self._render()
        if self._folder is None:
            return own_page, media_type
        others = [path for path in self._folder.iterdir() if path.name != self.name]
        pages = await asyncio.gather(*(self._ask(path) for path in others))
        return merge_pages({self.name: own_page} | {p.name: page for p, page in zip(others, pages) if page}), media_type

    async def _ask(self, path: Path) -> bytes:
        if sys.platform == "win32":
            return b""
        try:
            async with asyncio.timeout(SECONDS):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    return await reader.read()
                finally:
                    writer.close()
        except ConnectionRefusedError:  # it died without a word
            path.unlink(missing_ok=True)  # noqa: ASYNC240 one directory entry
        except (OSError, TimeoutError) as error:
            log.warning("the metrics of worker %s are missing: %r", path.name, error)
        return b""


def merge_pages(pages: Mapping[str, bytes]) -> bytes:
    """Prometheus's text pages by worker as one, each series with its worker."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import Metric
    from prometheus_client.parser import text_string_to_metric_families
    from prometheus_client.registry import Collector

    families: dict[str, Metric] = {}
    for worker, page in sorted(pages.items()):
        for family in text_string_to_metric_families(page.decode()):
            one = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            one.samples += [s._replace(labels={**s.labels, "worker": worker}) for s in family.samples]

    class All(Collector):
        def collect(self) -> Iterable[Metric]:
            return families.values()

    registry = CollectorRegistry()
    registry.register(All())
    return generate_latest(registry)
