"""Files: atomic and private writes, and the cache folder for what can be made again."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TextIO

PRIVATE = 0o600
TRUNCATED = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
BINARY = getattr(os, "O_BINARY", 0)
"""On Windows a descriptor turns line feeds into two characters without it."""


def open_private(path: Path, flags: int = os.O_RDWR | os.O_CREAT | os.O_APPEND) -> int:
    """A descriptor of a file that its owner alone may read, whatever the umask; a file that is there keeps its mode."""
    flags |= BINARY
    try:
        descriptor = os.open(path, flags | os.O_EXCL, PRIVATE)
    except FileExistsError:
        return os.open(path, flags & ~os.O_EXCL, PRIVATE)
    if sys.platform != "win32":
        with suppress(OSError):
            os.fchmod(descriptor, PRIVATE)
    return descriptor


def append_to(path: Path) -> TextIO:
    """`path`, opened for appending text; a new file is its owner's alone to read."""
    return os.fdopen(open_private(path), "a", encoding="utf-8")


def write_atomically(path: Path, text: str, *, follow: bool = False, errors: str = "strict") -> None:
    """Replace `path` by `text` in one go; durable when it returns. Raises `OSError`.

    A symbolic link is an error, or with `follow` stays one, and what it leads to is replaced. A read-only file is an
    error, and a pipe or a device is written to. A new file is its owner's alone to read, for it may hold what agents
    saw; one that is there keeps its mode. `errors` are those of `str.encode`: ``surrogateescape`` writes back what was
    read so.
    """
    if _is_stream(path):
        with path.open("w", encoding="utf-8", errors=errors) as stream:
            stream.write(text)
        return
    target = replaceable(path, follow=follow)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(handle, "w", encoding="utf-8", errors=errors) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode) if target.exists() else PRIVATE)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def replaceable(path: Path, *, follow: bool = False) -> Path:
    """The file that a new one may replace for `path`. Raises `OSError`, for read-only ones too.

    Without `follow` a symbolic link is refused: neither is another file than the named one written, which somebody
    else may have put behind it, nor is the link lost. A rename asks the folder alone, so the file itself is opened
    once: what the system refuses there is refused here.
    """
    if path.is_symlink() and not follow:
        raise OSError(errno.ELOOP, f"it is a link to {os.readlink(path)}: name the file itself", str(path))
    if os.path.lexists(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE)
        try:
            is_read_only = not os.fstat(descriptor).st_mode & 0o222
        finally:
            os.close(descriptor)
        if is_read_only:  # which root may open all the same
            raise PermissionError(errno.EACCES, "it is read-only", str(path))
    return Path(os.path.realpath(path))


def _is_stream(path: Path) -> bool:
    """Whether it is a pipe, a device, or what this process has open already: nothing that can be replaced."""
    return str(path).startswith(("/dev/std", "/dev/fd/", "/proc/")) or (
        path.exists() and not path.is_file() and not path.is_dir()
    )


def user_folder(variable: str, below_home: str) -> Path:
    """A folder by the XDG specification, such as $XDG_STATE_HOME; one that is not absolute there does not count.

    It would be another folder wherever one works: a lost journal, or somebody else's script.
    """
    named = os.environ.get(variable, "")
    return Path(named) if os.path.isabs(named) else Path.home() / below_home


def cache_folder(name: str) -> Path:
    """A folder of what can be made again: under $AGENTCASCADE_CACHE, else the user's cache. It may not exist yet."""
    configured = os.environ.get("AGENTCASCADE_CACHE")
    base = Path(configured) if configured else user_folder("XDG_CACHE_HOME", ".cache") / "agentcascade"
    return base / name
