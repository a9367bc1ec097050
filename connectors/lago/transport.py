"""Sends HTTP requests to one Lago: applies time limits, translates errors, and reads lists and objects."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

import httpx
import msgspec

from connectors.config.http_client import HttpClient
from connectors.lago.bounded_response import bounded_response
from connectors.lago.errors import LagoRejected, LagoUnavailable, is_missing, refusal
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected
from schemas.organizations import DEFAULT, begins_with, external_id_of, org_key

API = "/api/v1"
PAGE = 100
#: The time limit of a whole request, as a multiple of httpx's time limit between two bytes.
_WHOLE = 1.25

S = TypeVar("S")
T = TypeVar("T")
#: Query parameters; a list holds several values of one name.
Query = Mapping[str, str | int | list[str]]

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Meta(msgspec.Struct):
    next_page: int | None = None
    total_pages: int = 0
    total_count: int = 0


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; pages are numbered from 1; `pages` and `total` are the numbers of all pages and members of the
    list.
    """

    members: list[T]
    number: int = 1
    pages: int = 0
    total: int = 0


def lago_http(timeout_s: float, connections: int, *, keep_alive: bool = True) -> httpx.AsyncClient:
    """Create an HTTP client with a connection pool. The caller closes it. It closes an idle connection before Lago's
    server does.

    It follows no redirect, so it never repeats a POST at another address.

    Args:
        timeout_s: limit between two bytes.
        connections: limit of the pool.
        keep_alive: False = no idle connection is kept.
    """
    limits = httpx.Limits(
        max_connections=connections, max_keepalive_connections=connections * keep_alive, keepalive_expiry=5
    )
    return HttpClient(timeout_s, limits=limits)


class LagoTransport:
    """Sends requests to one Lago with one API key.

    Args:
        http: the client; the caller closes it. Its timeout also limits the whole request, because a slow response might
            otherwise never end.
        base_url: URL of Lago, with or without `/api/v1`.
        api_key: the key, or a function that returns it and is called before each request.
        organization: name of the Lago organisation. The ids of its customers are then the keys of orgs, see
            schemas/organizations.py.
        others: names of further organisations. The default organisation is never asked about their orgs.
        on_request: called with (name of the request, HTTP method, HTTP status or 0 if no response came, seconds).
        on_headers: called with (name of the request, HTTP status, headers) if a response came.
        now: the wall clock, seconds since 1970 UTC.

    Attributes:
        root: the URL of Lago without `/api/v1`.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        base_url: str,
        api_key: str | Callable[[], str],
        on_request: Callable[[str, str, int, float], None] = lambda _name, _verb, _status, _seconds: None,
        on_headers: Callable[[str, int, Mapping[str, str]], None] = lambda _name, _status, _headers: None,
        now: Callable[[], float] = time.time,
        organization: str = DEFAULT,
        others: Collection[str] = (),
    ) -> None:
        self._http = http
        self._whole_s = None if http.timeout.read is None else http.timeout.read * _WHOLE
        self.root = base_url.rstrip("/").removesuffix(API)
        self._key = api_key
        self.organization_name = organization
        self._others = frozenset(others)
        self._on_request = on_request
        self._on_headers = on_headers
        self._now = now

    async def _send(
        self, name: str, verb: str, url: str, *, body: bytes | None = None, keyed: bool = True
    ) -> httpx.Response:
        """Send a request; return the response with any status. Raises: LagoUnavailable: no response came."""
        headers = self._authorization() if keyed else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = self._http.build_request(verb, url, content=body, headers=headers)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._whole_s):
                response = await bounded_response(self._http, request)
        except (httpx.RequestError, TimeoutError) as error:
            self._on_request(name, verb, 0, time.perf_counter() - started)
            raise LagoUnavailable(_reason(error), type(error).__name__) from error
        self._on_request(name, verb, response.status_code, time.perf_counter() - started)
        self._on_headers(name, response.status_code, response.headers)
        return response

    def _authorization(self) -> dict[str, str]:
        """Return the header, or none without a key: Lago then answers 401, and httpx cannot send an empty key."""
        key = self._key if isinstance(self._key, str) else self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def in_lago(self, org_id: str) -> str:
        """Return the external id in Lago of an org of this organisation; `""` stays `""`.

        Raises:
            LagoRejected: `other_organization`: the org is in another organisation, so nothing is sent.
        """
        external_id = external_id_of(self.organization_name, org_id)
        own = external_id != org_id if self.organization_name else begins_with(org_id) not in self._others
        if org_id and not own:
            raise LagoRejected("other_organization", "the org is in another Lago organisation")
        return external_id

    def named(self, external_id: str) -> str:
        """Return the key of the org that has this external id in Lago."""
        return org_key(self.organization_name, external_id)

    async def _request(self, name: str, verb: str, path: str, body: object = None) -> bytes:
        """Return the body of a successful response; `path` is below `/api/v1`. Raises: LagoIntegrationError."""
        encoded = None if body is None else msgspec.json.encode(body)
        response = await self._send(name, verb, f"{self.root}{API}{path}", body=encoded)
        if not response.is_success:
            raise refusal(response)
        return response.content

    async def _one(
        self, name: str, path: str, root: str, shape: type[T], *, verb: str = "GET", body: object = None
    ) -> T:
        """Return the object under the key `root` of the response; `body` is sent under the same key. Raises:
        LagoIntegrationError.
        """
        sent = None if body is None else {root: body}
        return under(name, await self._request(name, verb, path, sent), root, shape)

    async def _get_or_none(self, name: str, path: str, root: str, shape: type[T], *, verb: str = "GET") -> T | None:
        """Like `_one`, but return None if Lago itself says that the object does not exist."""
        try:
            return await self._one(name, path, root, shape, verb=verb)
        except LagoRejected as error:
            if is_missing(error.code):
                return None
            raise

    async def _created(
        self,
        name: str,
        path: str,
        root: str,
        shape: type[T],
        wanted: object,
        unique: str,
        known: Callable[[], Awaitable[T | None]],
    ) -> T:
        """Return the new object. If Lago refuses it because an object with the same value of `unique` exists, return
        the result of `known`.

        Raises:
            LagoIntegrationError: also for the refusal, if `known` finds nothing.
        """
        try:
            return await self._one(name, path, root, shape, verb="POST", body=wanted)
        except LagoRejected as error:
            found = await known() if error.says(unique, "value_already_exist") else None
            if found is None:
                raise
            return found

    async def _page(
        self, name: str, path: str, root: str, shape: type[T], query: Query, *, number: int, size: int
    ) -> Page[T]:
        """Return one page of a list; empty if Lago does not know the resource. Raises: LagoIntegrationError."""
        members = await self._page_members(name, path, query, number, size)
        if members is None:
            return Page([], number)
        meta = _under(name, members, "meta", _Meta)
        return Page(_under(name, members, root, list[shape]), number, meta.total_pages, meta.total_count)  # type: ignore[valid-type]

    async def _every(
        self, name: str, path: str, root: str, shape: type[T], query: Query | None = None, most: int | None = None
    ) -> list[T]:
        """Read the first `most` members of a list, page by page; empty if Lago does not know the resource."""
        listed: list[T] = []
        page: int | None = 1
        size = PAGE if most is None else min(most, PAGE)
        while page is not None and (most is None or len(listed) < most):
            members = await self._page_members(name, path, query or {}, page, size)
            if members is None:
                break
            listed += _under(name, members, root, list[shape])  # type: ignore[valid-type]
            following = _under(name, members, "meta", _Meta).next_page if "meta" in members else None
            if following is not None and following <= page:
                raise LagoUnavailable("bad_answer", f"{name}: page {following} follows page {page}")
            page = following
        return listed[:most]

    async def _page_members(
        self, name: str, path: str, query: Query, number: int, size: int
    ) -> dict[str, msgspec.Raw] | None:
        asked = urlencode({**query, "per_page": size, "page": number}, doseq=True)
        try:
            return _members_of(name, await self._request(name, "GET", f"{path}?{asked}"))
        except LagoRejected as error:
            if is_missing(error.code):
                return None
            raise


def quoted(text: str) -> str:
    """Encode an id as one segment of a path."""
    return quote(text, safe="")


def safe(text: str) -> str:
    """Like `quoted`, for an id that must not change the meaning of the path.

    Raises:
        LagoRejected: `unsafe_id`: the path would name the list or its parent.
    """
    if text in {"", ".", ".."}:
        raise LagoRejected("unsafe_id", "the id is empty, or is . or ..")
    return quoted(text)


def read(meaning: Callable[[S], T], value: S) -> T:
    """Convert a value of Lago's response into one of our types. Raises: LagoUnavailable `bad_answer`."""
    try:
        return meaning(value)
    except Rejected as error:
        raise LagoUnavailable("bad_answer", error.reason) from error


def under(name: str, body: bytes, root: str, shape: type[T]) -> T:
    """Return the object under the key `root` of a body. Raises: LagoUnavailable `bad_answer`."""
    return _under(name, _members_of(name, body), root, shape)


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
    """Return the reason of a failed request. It is `connect` only if no byte of the request can have been sent."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.UnsupportedProtocol):
        return "connect"
    return "timeout" if isinstance(error, httpx.TimeoutException | TimeoutError) else "no_answer"
