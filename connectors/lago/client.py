"""Lago's HTTP API as this product uses it: one pooled client, every error turned into a decision.

The shapes are described, with their sources, in docs/lago-behaviour.md.
"""

from collections.abc import Callable
from http import HTTPStatus
from time import perf_counter
from typing import TypeVar
from urllib.parse import quote

import httpx
import msgspec

from connectors.lago.shapes import (
    Customer,
    CustomerBody,
    EventBody,
    Organization,
    OrganizationBody,
    Refusal,
    SubscriptionsBody,
    event_of,
    period_of,
)
from schemas.customers import Period
from schemas.errors import MeterbridgeError, Rejected, Unavailable
from schemas.records import LagoEvent
from streams.core.answers import Answer

API = "/api/v1"
PAGE = 100
#: Asking again with the same words is pointless for these; every other failure may pass.
_WRONG_FOR_EVER = frozenset({400, 405, 413, 414, 415, 422})

S = TypeVar("S")
T = TypeVar("T")


class LagoError(MeterbridgeError):
    """Lago did not do what it was asked; always also `Unavailable` or `Rejected`."""


class LagoUnavailable(LagoError, Unavailable):
    """No answer (`connect`, `timeout`, `no_answer`), `bad_answer`, or a status that may pass (`http_<status>`)."""


class LagoRejected(LagoError, Rejected):
    """The request itself is refused: `http_<status>`, with Lago's code as detail."""


def _unobserved(_name: str, _status: int, _seconds: float) -> None:
    """Nobody counts the requests."""


def lago_http(timeout_s: float, connections: int) -> httpx.AsyncClient:
    """A pooled client, to be closed by its owner. An idle connection is dropped before Lago's server drops it.

    Proxies and certificate authorities come from where httpx looks for them; redirects are not followed,
    so a post is never repeated elsewhere.
    """
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=5)
    return httpx.AsyncClient(timeout=timeout_s, limits=limits)


class LagoClient:
    """One Lago, one API key.

    Args:
        http: pooled, closed by its owner.
        base_url: with or without `/api/v1`.
        on_request: called with (name of the request, HTTP status or 0 where none came, seconds).
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        base_url: str,
        api_key: str,
        on_request: Callable[[str, int, float], None] = _unobserved,
    ) -> None:
        self._http = http
        self._root = base_url.rstrip("/").removesuffix(API)
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._on_request = on_request

    async def post_batch(self, body: bytes) -> Answer:
        """Post `{"events": [...]}` as it is; any HTTP answer is an answer.

        Raises:
            LagoUnavailable: `connect` (nothing was sent), `timeout` or `no_answer` (it may have been stored).
        """
        url = f"{self._root}{API}/events/batch"
        request = self._http.build_request(
            "POST", url, content=body, headers={**self._headers, "Content-Type": "application/json"}
        )
        response = await self._send("post_batch", request)
        return Answer(response.status_code, response.headers, response.content)

    async def get_event(self, transaction_id: str) -> LagoEvent | None:
        """The stored event, its timestamp as it is sent; None where Lago knows none. Raises: LagoError."""
        found = await self._get("get_event", f"/events/{_quoted(transaction_id)}", EventBody)
        if found is None or found.event.transaction_id != transaction_id:
            return None
        return _read(event_of, found.event)

    async def healthy(self) -> bool:
        """Whether Lago answers below 500 on `/health`; never raises. A proxy that hides the path is no illness."""
        try:
            response = await self._send("healthy", self._http.build_request("GET", f"{self._root}/health"))
        except LagoUnavailable:
            return False
        return response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR

    async def organization(self) -> Organization:
        """The tenant of the API key. Raises: LagoError."""
        found = await self._get("organization", "/organizations", OrganizationBody)
        if found is None:
            raise LagoUnavailable("http_404", "no organization under this address")
        return found.organization

    async def active_subscriptions(self, external_customer_id: str) -> list[Period]:
        """The customer's running subscriptions; empty for a customer that Lago does not know. Raises: LagoError."""
        query = f"external_customer_id={_quoted(external_customer_id)}&status[]=active&per_page={PAGE}"
        periods: list[Period] = []
        page: int | None = 1
        while page is not None:
            found = await self._get("active_subscriptions", f"/subscriptions?{query}&page={page}", SubscriptionsBody)
            if found is None:
                break
            periods += [_read(period_of, subscription) for subscription in found.subscriptions]
            page = found.meta.next_page
        return periods

    async def customer(self, external_id: str) -> Customer | None:
        """None where Lago knows none. Lago reads `a.b` as customer `a`: another's answer is none. Raises: LagoError."""
        found = await self._get("customer", f"/customers/{_quoted(external_id)}", CustomerBody)
        return found.customer if found is not None and found.customer.external_id == external_id else None

    async def _get(self, name: str, path: str, shape: type[T]) -> T | None:
        """None only where Lago itself says `<resource>_not_found`; a proxy's 404 is no answer about money."""
        request = self._http.build_request("GET", f"{self._root}{API}{path}", headers=self._headers)
        response = await self._send(name, request)
        if not response.is_success:
            code = _refusal_code(response.content)
            missing = code.endswith("_not_found") and code != "resource_not_found"
            if response.status_code == HTTPStatus.NOT_FOUND and missing:
                return None
            kind = LagoRejected if response.status_code in _WRONG_FOR_EVER else LagoUnavailable
            raise kind(f"http_{response.status_code}", code)
        try:
            return msgspec.json.decode(response.content, type=shape)
        except msgspec.DecodeError as error:
            raise LagoUnavailable("bad_answer", f"{name}: not the JSON that Lago answers") from error

    async def _send(self, name: str, request: httpx.Request) -> httpx.Response:
        started = perf_counter()
        try:
            response = await self._http.send(request)
        except httpx.RequestError as error:
            self._on_request(name, 0, perf_counter() - started)
            raise LagoUnavailable(_reason(error), type(error).__name__) from error
        self._on_request(name, response.status_code, perf_counter() - started)
        return response


def _read(meaning: Callable[[S], T], found: S) -> T:
    try:
        return meaning(found)
    except Rejected as error:
        raise LagoUnavailable("bad_answer", error.reason) from error


def _refusal_code(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=Refusal).code
    except msgspec.DecodeError:
        return ""


def _reason(error: httpx.RequestError) -> str:
    """`connect` only where no byte of the request can have left."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.UnsupportedProtocol):
        return "connect"
    return "timeout" if isinstance(error, httpx.TimeoutException) else "no_answer"


def _quoted(text: str) -> str:
    return quote(text, safe="")
