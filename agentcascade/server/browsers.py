"""Cross-site requests (CSRF) and DNS rebinding: what a web page in somebody's browser must not do with this server.

A page cannot choose the headers `Host`, `Origin` and `Sec-Fetch-Site` of its requests, and cannot send JSON to another
origin without being allowed to. Programs that are no browsers send none of the last two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from ipaddress import ip_address

from agentcascade.server.errors import Problem, Refused

PROBES = frozenset({"/healthz", "/readyz"})
"""They say nothing, to anybody."""
ONCE = frozenset({b"host", b"origin", b"sec-fetch-site", b"content-type"})
"""Headers by which a request is judged: what is there twice could be read one way here and another way elsewhere."""
PAGES = frozenset({"/", "/dashboard/steps", "/dashboard/episodes", "/dashboard/episode"})
"""Pages of the dashboard, which a link of another site may open, in a tab of its own, which that site cannot read."""
FORMS = frozenset({"/dashboard/sign-in", "/dashboard/sign-out"})
"""Where the dashboard's own forms go. They are checked for their origin as all requests are."""
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class BrowserGuard:
    """Refuses what only a foreign page would ask.

    `hosts` are the names that this server is reached by (``*.example.com`` for all below, ``*`` for any), `origins`
    those of pages that may use it. `guarded` says whether a key is needed anyway: a page has none, so that a name which
    is in no list does no harm, and none is refused unless `hosts` names some.
    """

    def __init__(
        self, hosts: Iterable[str], origins: Iterable[str], guarded: Callable[[], Awaitable[bool]], own_host: str = ""
    ) -> None:
        named = [h.lower().rstrip(".") for h in hosts]
        self._hosts = frozenset(named) | ({own_host.lower()} if own_host else set())
        self._below = tuple(h[1:] for h in named if h.startswith("*."))
        self._listed = bool(named)
        self._origins = frozenset(o.lower().rstrip("/").encode() for o in origins)
        self._guarded = guarded

    async def check(self, method: str, path: str, headers: Mapping[bytes, bytes], names: Iterable[bytes] = ()) -> None:
        """Raises `Refused`: 403 for a foreign host or page, 415 for a body that is not plain JSON.

        `names` are those of all headers, in which one of `ONCE` must not be twice (400).
        """
        if path in PROBES:
            return
        host = headers.get(b"host", b"")
        judged = [name for name in names if name in ONCE]
        if len(judged) != len(set(judged)):
            twice = next(name for name in judged if judged.count(name) > 1).decode().title()
            raise _refused(400, f"give one {twice} header, not several", "invalid_header")
        if not self.knows(host) and (self._listed or not await self._is_guarded()):
            raise _refused(
                403,
                f"this server does not go by the name {_shown(host)}: its owner can add it to server.hosts",
                "host_not_allowed",
            )
        self._check_page(method, path, headers, host)
        if method in WITH_BODY and not (method == "POST" and path in FORMS):
            _check_body(headers)

    def knows(self, host: bytes) -> bool:
        """An address, a name without a dot (which no public name server has), or one of the list."""
        if not host or "*" in self._hosts:
            return True
        name = host_name(host)
        if name is None:
            return False
        return (
            "." not in name  # localhost, a container's or a service's name
            or name in self._hosts
            or name.endswith((".localhost", *self._below))
            or _is_address(name)
        )

    async def _is_guarded(self) -> bool:
        try:
            return await self._guarded()
        except Exception:  # nobody knows whether there are keys
            return False

    def _check_page(self, method: str, path: str, headers: Mapping[bytes, bytes], host: bytes) -> None:
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin is not None and origin.lower() in self._origins:
            return
        same_origin = origin is None or origin.lower().partition(b"://")[2] == host.lower()
        if site == b"same-origin" or (same_origin and site in (None, b"none")):  # "none": the address was typed
            return
        if site is not None and method == "GET" and path in PAGES and _is_opened(headers):
            return
        raise _refused(
            403,
            f"a page of {_shown(origin or b'another site')} may not use this server: its owner can add the origin to "
            "server.origins",
            "origin_not_allowed",
        )


def _is_opened(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the answer becomes a whole tab, not a frame, an image or a script."""
    return headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest", b"document") == b"document"


def host_name(host: bytes) -> str | None:
    """The lower-case name or address in a `Host` header, without port and brackets; None for one that is none."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        name, closed, rest = text[1:].partition("]")
        return name if closed and (not rest or rest.startswith(":")) and _is_address(name) else None
    name, _, port = text.partition(":")
    name = name.removesuffix(".")
    plain = name and all(c.isascii() and (c.isalnum() or c in "-._") for c in name) and (not port or port.isdigit())
    return name if plain else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _check_body(headers: Mapping[bytes, bytes]) -> None:
    """A form or plain text is what a page may send without asking; curl's ``-d`` sends a form unless told otherwise."""
    kind = headers.get(b"content-type")
    if kind is not None:
        media = kind.partition(b";")[0].strip().lower()
        if media != b"application/json" and not (media.startswith(b"application/") and media.endswith(b"+json")):
            raise _refused(
                415, f"the body is {_shown(media)}: send JSON, with 'Content-Type: application/json'", "not_json"
            )
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise _refused(415, "the body is compressed: send it as it is, without Content-Encoding", "compressed_body")


def _shown(text: bytes) -> str:
    return repr(text[:80].decode("latin-1"))


def _refused(status: int, message: str, code: str) -> Refused:
    return Refused(Problem(status, message, "invalid_request_error", code))
