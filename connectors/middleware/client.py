"""Meterbridge as other services reach it: usage recorded over HTTP, limits read; both with a bearer key of ours.

A record is posted again with the same bytes while nobody can say that it is stored: its transaction id makes the
repeat harmless.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final, TypeVar

import httpx
import msgspec

from connectors.lago.errors import LagoIntegrationError, LagoRejected, LagoUnavailable
from connectors.lago.metered import MeteredEvent
from connectors.lago.wire import quoted
from schemas.decoding import UNDECODABLE
from schemas.moments import to_iso
from streams.core.asked_wait import asked_wait_s
from streams.core.backoff import RetryPolicy

ORGS: Final = "/api/v1/billing/org/organizations"
PLANS: Final = "/api/v1/billing/plans"
ATTEMPTS: Final = 4
#: Of a body that is wrong; the same again is pointless.
_WRONG: Final = frozenset({400, 409, 413, 415, 422})
#: What passes by itself within seconds.
_PASSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT_S = 5.0
#: One whole attempt may take this much longer than the wait for its next byte.
_WHOLE = 1.25

T = TypeVar("T")


class _Usage(msgspec.Struct, frozen=True):
    event_code: str
    transaction_id: str
    properties: dict[str, str]
    timestamp: str


class _Accepted(msgspec.Struct):
    status: str
    transaction_id: str


class _Limits(msgspec.Struct):
    limits: dict[str, int]


class _Subscription(msgspec.Struct):
    external_id: str


class _Account(msgspec.Struct):
    subscription: _Subscription


class _Problem(msgspec.Struct):
    reason: str = ""
    detail: str = ""


class OrgClient:
    """A `UsageSink` and `Limits` behind HTTP; see `connectors.lago.metered` and `connectors.lago.limits`.

    Args:
        http: pooled, closed by its owner; its timeout is that of one attempt.
        url: of the management API.
        key: an API key with the scopes `usage:write`, for limits `orgs:read` and `plans:read`, and to subscribe orgs
            `orgs:write`.
        attempts: in one call, with growing waits between them.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        key: str,
        *,
        attempts: int = ATTEMPTS,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._whole_s = None if http.timeout.read is None else http.timeout.read * _WHOLE
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}
        self._attempts = attempts
        self._policy = policy or RetryPolicy(random.random, cap_s=_LONGEST_WAIT_S)
        self._sleep = sleep
        self._now = now

    async def record(self, event: MeteredEvent) -> None:
        """Durable on return.

        Raises:
            LagoRejected: Meterbridge refuses the event; `reason` is what it says.
            LagoUnavailable: it is not known to be stored; the same event again is safe.
        """
        usage = _Usage(event.code, event.transaction_id, event.properties, to_iso(event.at_us))
        path = f"{ORGS}/{quoted(event.org_id)}/usage/record"
        answer = await self._asked("POST", path, msgspec.json.encode(usage))
        told = _decoded(answer, _Accepted)
        if answer.status_code != HTTPStatus.ACCEPTED or told.transaction_id != event.transaction_id:
            raise LagoUnavailable("bad_answer", "an answer, but not Meterbridge's", status=answer.status_code)

    async def of_org(self, org_id: str) -> Mapping[str, int]:
        """See `Limits`."""
        return await self._limits(f"{ORGS}/{quoted(org_id)}/limits")

    async def of_plan(self, plan_code: str) -> Mapping[str, int]:
        """See `Limits`."""
        return await self._limits(f"{PLANS}/{quoted(plan_code)}/limits")

    async def set_up(self, org_id: str, body: Mapping[str, str]) -> str:
        """Customer and subscription where they are missing, see `POST .../setup`; the subscription's external id.

        Needs the scope `orgs:write`. Raises: LagoRejected: `other_plan`, `plan_not_found`, ...; LagoUnavailable.
        """
        answer = await self._asked("POST", f"{ORGS}/{quoted(org_id)}/setup", msgspec.json.encode(body))
        return _decoded(answer, _Account).subscription.external_id

    async def change_plan(self, org_id: str, plan_code: str) -> str:
        """Another plan under the same subscription, whose external id is answered. Scope and errors as of `set_up`."""
        body = msgspec.json.encode({"plan_code": plan_code})
        answer = await self._asked("PUT", f"{ORGS}/{quoted(org_id)}/subscription", body)
        return _decoded(answer, _Account).subscription.external_id

    async def _limits(self, path: str) -> Mapping[str, int]:
        """What nobody knows has no limits."""
        try:
            return _decoded(await self._asked("GET", path), _Limits).limits
        except LagoRejected as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return {}
            raise

    async def _asked(self, verb: str, path: str, body: bytes | None = None) -> httpx.Response:
        """A success. Raises: LagoIntegrationError, after the last attempt."""
        for attempt in range(1, self._attempts + 1):
            failure, wait_s = await self._attempt(verb, path, body)
            if isinstance(failure, httpx.Response):
                return failure
            if attempt == self._attempts or (failure.status and failure.status not in _PASSES):
                raise failure
            await self._sleep(max(wait_s, self._policy.wait_s(attempt)))
        raise AssertionError

    async def _attempt(
        self, verb: str, path: str, body: bytes | None
    ) -> tuple[httpx.Response | LagoIntegrationError, float]:
        """The success or what went wrong, and the seconds that an answer asks to wait."""
        headers = {**self._headers, **({"Content-Type": "application/json"} if body is not None else {})}
        try:
            async with asyncio.timeout(self._whole_s):
                answer = await self._http.request(verb, self._url + path, content=body, headers=headers)
        except (httpx.TimeoutException, TimeoutError) as error:
            return LagoUnavailable("timeout", type(error).__name__), 0.0
        except httpx.RequestError as error:
            return LagoUnavailable("connect", type(error).__name__), 0.0
        if answer.is_success:
            return answer, 0.0
        wait_s = asked_wait_s(answer.status_code, answer.headers, self._now()) or 0.0
        return _refusal(answer), min(wait_s, _LONGEST_WAIT_S)


def _refusal(answer: httpx.Response) -> LagoIntegrationError:
    """Only an answer in Meterbridge's own form refuses an event for good. A page of a proxy says nothing about it."""
    said = _problem(answer)
    status = answer.status_code
    unknown = status == HTTPStatus.NOT_FOUND and said.reason not in {"", "not_found"}
    refused = bool(said.reason) and status in _WRONG
    kind = LagoRejected if refused or unknown else LagoUnavailable
    return kind(said.reason or f"http_{status}", said.detail, status=status, code=said.reason)


def _problem(answer: httpx.Response) -> _Problem:
    try:
        return msgspec.json.decode(answer.content, type=_Problem)
    except UNDECODABLE:
        return _Problem()


def _decoded(answer: httpx.Response, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=shape)
    except UNDECODABLE as error:
        raise LagoUnavailable("bad_answer", "an answer, but not Meterbridge's", status=answer.status_code) from error
