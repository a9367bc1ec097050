"""One Lago over HTTP: the request, the bound on its time, and the error of what goes wrong."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

import httpx
import msgspec

from connectors.lago.errors import LagoRejected, LagoUnavailable, is_missing, refusal
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected

API = "/api/v1"
PAGE = 100
#: A whole request may take this much longer than the wait for its next byte, after which httpx gives up.
_WHOLE = 1.25

S = TypeVar("S")
T = TypeVar("T")
#: Of a list's query: a value, or several under one name.
Query = Mapping[str, str | int | list[str]]

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Meta(msgspec.Struct):
    next_page: int | None = None
    total_pages: int = 0
    total_count: int = 0


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list, counted from 1: its members, and how many pages and members there are."""

    members: list[T]
    number: int = 1
    pages: int = 0
    total: int = 0


def _unobserved(_name: str, _status: int, _seconds: float) -> None:
    """Nobody counts the requests."""


def _unheard(_name: str, _status: int, _headers: Mapping[str, str]) -> None:
    """Nobody reads the headers."""


def lago_http(timeout_s: float, connections: int, *, keep_alive: bool = True) -> httpx.AsyncClient:
    """A pooled client, to be closed by its owner. An idle connection is dropped before Lago's server drops it, or at
    once where none is to be kept alive.

    Proxies and certificate authorities come from where httpx looks for them; redirects are not followed,
    so a post is never repeated elsewhere.
    """
    limits = httpx.Limits(
        max_connections=connections, max_keepalive_connections=connections * keep_alive, keepalive_expiry=5
    )
    return httpx.AsyncClient(timeout=timeout_s, limits=limits)


class LagoTransport:
    """One Lago, one API key.

    Args:
        http: pooled, closed by its owner. Its timeout bounds the whole request too: a body may trickle for ever.
        base_url: with or without `/api/v1`.
        on_request: called with (name of the request, HTTP status or 0 where none came, seconds).
        on_headers: called with (name of the request, HTTP status, headers) where an answer came.
        now: the wall clock, seconds since 1970.

    Attributes:
        root: where Lago is, without `/api/v1`.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        base_url: str,
        api_key: str,
        on_request: Callable[[str, int, float], None] = _unobserved,
        on_headers: Callable[[str, int, Mapping[str, str]], None] = _unheard,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._whole_s = None if http.timeout.read is None else http.timeout.read * _WHOLE
        self.root = base_url.rstrip("/").removesuffix(API)
        # Without a key Lago answers 401 and says so; an empty one could not even be sent.
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._on_request = on_request
        self._on_headers = on_headers
        self._now = now

    async def _send(
        self, name: str, verb: str, url: str, *, body: bytes | None = None, keyed: bool = True
    ) -> httpx.Response:
        """Any HTTP answer is an answer. Raises: LagoUnavailable: none came."""
        headers = dict(self._headers) if keyed else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = self._http.build_request(verb, url, content=body, headers=headers)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._whole_s):
                response = await self._http.send(request)
        # AttributeError: anyio's (4.x) of a connection that is reset the moment it is made has no socket to ask.
        except (httpx.RequestError, TimeoutError, AttributeError) as error:
            self._on_request(name, 0, time.perf_counter() - started)
            raise LagoUnavailable(_reason(error), type(error).__name__) from error
        self._on_request(name, response.status_code, time.perf_counter() - started)
        self._on_headers(name, response.status_code, response.headers)
        return response

    async def _asked(self, name: str, verb: str, path: str, body: object = None) -> bytes:
        """The body of a success, below `/api/v1`. Raises: LagoIntegrationError."""
        encoded = None if body is None else msgspec.json.encode(body)
        response = await self._send(name, verb, f"{self.root}{API}{path}", body=encoded)
        if not response.is_success:
            raise refusal(response)
        return response.content

    async def _one(
        self, name: str, path: str, root: str, shape: type[T], *, verb: str = "GET", body: object = None
    ) -> T:
        """The object under its root key; what is sent stands under the same one. Raises: LagoIntegrationError."""
        sent = None if body is None else {root: body}
        return _under(name, _members_of(name, await self._asked(name, verb, path, sent)), root, shape)

    async def _found(self, name: str, path: str, root: str, shape: type[T], *, verb: str = "GET") -> T | None:
        """As `_one`; None only where Lago itself says that there is no such thing."""
        try:
            return await self._one(name, path, root, shape, verb=verb)
        except LagoRejected as error:
            if is_missing(error.code):
                return None
            raise

    async def _page(
        self, name: str, path: str, root: str, shape: type[T], query: Query, *, number: int, size: int
    ) -> Page[T]:
        """One page of a list; a resource that Lago does not know is an empty one. Raises: LagoIntegrationError."""
        asked = urlencode({**query, "per_page": size, "page": number}, doseq=True)
        try:
            members = _members_of(name, await self._asked(name, "GET", f"{path}?{asked}"))
        except LagoRejected as error:
            if not is_missing(error.code):
                raise
            return Page([], number)
        meta = _under(name, members, "meta", _Meta)
        return Page(_under(name, members, root, list[shape]), number, meta.total_pages, meta.total_count)  # type: ignore[valid-type]

    async def _every(
        self, name: str, path: str, root: str, shape: type[T], query: Query | None = None, most: int | None = None
    ) -> list[T]:
        """A list, read page by page, its first `most` members; a resource that Lago does not know is an empty one."""
        listed: list[T] = []
        page: int | None = 1
        size = PAGE if most is None else min(most, PAGE)
        while page is not None and (most is None or len(listed) < most):
            asked = urlencode({**(query or {}), "per_page": size, "page": page}, doseq=True)
            try:
                members = _members_of(name, await self._asked(name, "GET", f"{path}?{asked}"))
            except LagoRejected as error:
                if is_missing(error.code):
                    break
                raise
            listed += _under(name, members, root, list[shape])  # type: ignore[valid-type]
            following = _under(name, members, "meta", _Meta).next_page if "meta" in members else None
            if following is not None and following <= page:
                raise LagoUnavailable("bad_answer", f"{name}: page {following} follows page {page}")
            page = following
        return listed[:most]


def quoted(text: str) -> str:
    """An id as one part of a path."""
    return quote(text, safe="")


def safe(text: str) -> str:
    """As `quoted`, for an id that Lago's paths tell apart from every other.

    Raises:
        LagoRejected: `unsafe_id`: as a path it would name something else: the list, or what is above it.
    """
    if text in {"", ".", ".."}:
        raise LagoRejected("unsafe_id", "an id is empty, or means another path")
    return quoted(text)


def read(meaning: Callable[[S], T], found: S) -> T:
    """What was found, in our own types. Raises: LagoUnavailable `bad_answer`."""
    try:
        return meaning(found)
    except Rejected as error:
        raise LagoUnavailable("bad_answer", error.reason) from error


def _members_of(name: str, body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _members.decode(body)
    except UNDECODABLE as error:
        raise LagoUnavailable("bad_answer", f"{name}: not the JSON that Lago answers") from error


def _under(name: str, members: Mapping[str, msgspec.Raw], root: str, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(members[root], type=shape)
    except (KeyError, *UNDECODABLE) as error:
        raise LagoUnavailable("bad_answer", f"{name}: not the JSON that Lago answers") from error


def _reason(error: Exception) -> str:
    """`connect` only where no byte of the request can have left."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.UnsupportedProtocol):
        return "connect"
    return "timeout" if isinstance(error, httpx.TimeoutException | TimeoutError) else "no_answer"
