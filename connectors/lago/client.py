"""Lago's HTTP API as this product uses it: one pooled client, every error turned into a decision.

The shapes are described, with their sources, in docs/lago-behaviour.md.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

import httpx
import msgspec

from connectors.lago.shapes import (
    Customer,
    CustomerBody,
    EventBody,
    Health,
    Metric,
    MetricBody,
    Organization,
    OrganizationBody,
    Plan,
    PlansBody,
    Refusal,
    SubscriptionsBody,
    UsageBody,
    event_of,
    period_of,
    usage_of,
)
from schemas.customers import Period
from schemas.errors import MeterbridgeError, Rejected, Unavailable
from schemas.records import LagoEvent
from streams.core.answers import Answer
from streams.core.proof import LagoUsage

API = "/api/v1"
PAGE = 100
#: A whole request may take this much longer than the wait for its next byte, after which httpx gives up.
_WHOLE = 1.25
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


def _unheard(_name: str, _status: int, _headers: Mapping[str, str]) -> None:
    """Nobody reads the headers."""


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
        http: pooled, closed by its owner. Its timeout bounds the whole request too: a body may trickle for ever.
        base_url: with or without `/api/v1`.
        on_request: called with (name of the request, HTTP status or 0 where none came, seconds).
        on_headers: called with (name of the request, HTTP status, headers) where an answer came.
        now: the wall clock, seconds since 1970.
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
        self._root = base_url.rstrip("/").removesuffix(API)
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._on_request = on_request
        self._on_headers = on_headers
        self._now = now

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
        return Answer(response.status_code, response.headers, response.content, self._now())

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

    async def version(self) -> str:
        """What `/health` calls this Lago: a release's tag, or whatever its image was built as. Raises: LagoError."""
        response = await self._send("version", self._http.build_request("GET", f"{self._root}/health"))
        try:
            return msgspec.json.decode(response.content, type=Health).version
        except msgspec.DecodeError as error:
            raise LagoUnavailable("bad_answer", "health: no version") from error

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

    async def metric(self, code: str) -> Metric | None:
        """A billable metric; None where Lago knows none. Raises: LagoError."""
        found = await self._get("metric", f"/billable_metrics/{_quoted(code)}", MetricBody)
        return None if found is None else found.billable_metric

    async def plans(self) -> list[Plan]:
        """Every plan with its charges. Raises: LagoError."""
        plans: list[Plan] = []
        page: int | None = 1
        while page is not None:
            found = await self._get("plans", f"/plans?per_page={PAGE}&page={page}", PlansBody)
            if found is None:
                break
            plans += found.plans
            page = found.meta.next_page
        return plans

    async def current_usage(self, external_customer_id: str, subscription: str, code: str) -> LagoUsage | None:
        """What Lago counts on the metric `code` in the running period; None where it is not running. Raises: LagoError."""
        path = (
            f"/customers/{_quoted(external_customer_id)}/current_usage?external_subscription_id={_quoted(subscription)}"
        )
        try:
            found = await self._get("current_usage", path, UsageBody)
        except LagoRejected as error:
            if error.detail == "no_active_subscription":
                return None
            raise
        return None if found is None else _read(lambda body: usage_of(subscription, body.customer_usage, code), found)

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
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._whole_s):
                response = await self._http.send(request)
        except (httpx.RequestError, TimeoutError) as error:
            self._on_request(name, 0, time.perf_counter() - started)
            raise LagoUnavailable(_reason(error), type(error).__name__) from error
        self._on_request(name, response.status_code, time.perf_counter() - started)
        self._on_headers(name, response.status_code, response.headers)
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


def _reason(error: httpx.RequestError | TimeoutError) -> str:
    """`connect` only where no byte of the request can have left."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.UnsupportedProtocol):
        return "connect"
    return "timeout" if isinstance(error, httpx.TimeoutException | TimeoutError) else "no_answer"


def _quoted(text: str) -> str:
    return quote(text, safe="")
