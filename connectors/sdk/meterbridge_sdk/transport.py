"""Sends one request to Meterbridge's API, and repeats it while it is unknown whether Meterbridge got it.

Each attempt sends the same bytes. A repeat has no further effect, because a usage event has a transaction id.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import httpx

from meterbridge_sdk.errors import BillingError, BillingRejected, BillingUnauthorized, BillingUnavailable
from meterbridge_sdk.responses import bounded_response, json_object, shown_url
from meterbridge_sdk.retries import backoff_s, retry_after_s
from meterbridge_sdk.wire import Route

#: The maximum number of attempts for a request, and for a request that only reads. The latter has fewer, because a
#: client of the service waits for it.
ATTEMPTS: Final = 4
READ_ATTEMPTS: Final = 2
#: Statuses of a request that is wrong, if the response is Meterbridge's own.
_WRONG: Final = frozenset({400, 409, 413, 415, 422})
#: Statuses of a key that is unknown or lacks a scope, if the response is Meterbridge's own.
_UNAUTHORIZED: Final = frozenset({401, 403})
#: Statuses of errors that often end within seconds.
_PASSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_CHECK: Final = "check Meterbridge's address (METERBRIDGE_URL), and that it runs there"
#: How much longer a whole attempt may take than the wait for the next byte, after which httpx gives up.
_WHOLE = 1.25
_LAST_PORT: Final = 65_535


class Transport:
    """Sends requests with the API key. For the arguments see `MeterbridgeClient`."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        api_key: str,
        *,
        attempts: int,
        random_number: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        now: Callable[[], float],
    ) -> None:
        if not isinstance(http, httpx.AsyncClient):
            raise TypeError("http must be an httpx.AsyncClient")
        _check_url(url)
        if not isinstance(api_key, str):
            raise TypeError("api_key must be a str (METERBRIDGE_API_KEY)")
        if not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
            raise ValueError("api_key must be printable ASCII, and not empty")  # never with its value
        if len(api_key.split()) > 1:
            raise ValueError("api_key must be the token alone, without Bearer")
        if type(attempts) is not int:
            raise TypeError("attempts must be an int")
        if attempts < 1:
            raise ValueError("attempts must be at least 1")
        self._http = http
        self._wait_s = http.timeout.read
        self._timeout_s = None if self._wait_s is None else self._wait_s * _WHOLE
        self._url = url.rstrip("/")
        self._place = shown_url(httpx.URL(self._url))
        self._headers = {"Authorization": f"Bearer {api_key.strip()}"}
        self._attempts = attempts
        self._random_number = random_number
        self._sleep = sleep
        self._now = now

    async def request(self, route: Route, org_id: str, body: Mapping[str, object] | None = None) -> httpx.Response:
        """Send the request, and return the response if its status is a success.

        Args:
            route: the operation; `org_id` is put into its path.
            body: sent as JSON; None = nothing is sent.

        Raises:
            BillingError: the error of the last attempt.
        """
        if org_id in {"", ".", ".."}:
            raise BillingRejected("bad_org_id", "the org's id is empty, or means another path")
        try:
            path = route.of_org(org_id)
        except (TypeError, ValueError) as error:
            raise BillingRejected("bad_request", f"org_id cannot be a part of a path: {error}") from None
        content = None if body is None else _json(body)
        attempts = self._attempts if content is not None else min(self._attempts, READ_ATTEMPTS)
        for attempt in range(1, attempts + 1):
            result, wait_s = await self._attempt(route.method, path, content)
            if isinstance(result, httpx.Response):
                return result
            if attempt == attempts or (result.status and result.status not in _PASSES):
                raise result
            await self._sleep(max(wait_s, backoff_s(attempt, self._random_number())))
        raise AssertionError

    async def _attempt(
        self, method: str, path: str, content: bytes | None
    ) -> tuple[httpx.Response | BillingError, float]:
        """Return the response or the error, and the seconds that the response asks to wait."""
        headers = {**self._headers, **({"Content-Type": "application/json"} if content is not None else {})}
        request = self._http.build_request(method, self._url + path, content=content, headers=headers)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await bounded_response(self._http, request)
        except (httpx.ConnectTimeout, httpx.PoolTimeout):
            return BillingUnavailable("timeout", f"no connection to {self._place} in time: {_CHECK}"), 0.0
        except (httpx.TimeoutException, TimeoutError):
            waited = "in time" if self._wait_s is None else f"within {self._wait_s:g} s"
            return BillingUnavailable("timeout", f"no answer from {self._place} {waited}"), 0.0
        except httpx.ConnectError:
            return BillingUnavailable("connection_failed", f"cannot connect to {self._place}: {_CHECK}"), 0.0
        except (httpx.RequestError, AttributeError) as error:
            # uvloop may have closed the connection before anyio 4 asks its socket for the address of the peer.
            if isinstance(error, AttributeError) and (error.obj is not None or error.name != "getpeername"):
                raise
            lost = f"{self._place} ended the connection before its answer ({type(error).__name__})"
            return BillingUnavailable("connection_lost", lost), 0.0
        if response.is_success:
            return response, 0.0
        return _refusal(response), retry_after_s(response.headers, self._now())


def _check_url(url: str) -> None:
    """Raises: TypeError, ValueError: `url` cannot be the API's address. The text does not show it: it may hold a password."""
    if not isinstance(url, str):
        raise TypeError("url must be a str (METERBRIDGE_URL)")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("url must begin with http:// or https:// and name a host")
    if parsed.port is not None and not 0 < parsed.port <= _LAST_PORT:
        raise ValueError(f"url must have a port from 1 to {_LAST_PORT}")
    if parsed.userinfo:
        raise ValueError("url must have no user name and password: give the token alone, as api_key")
    if parsed.query or parsed.fragment or "?" in url:
        raise ValueError("url must have no query and no fragment")


def _json(body: Mapping[str, object]) -> bytes:
    """Return the body as JSON. Raises: BillingRejected: `bad_request`: a member cannot be written as JSON; the message
    names it.
    """
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        wrong = ", ".join(name for name, value in body.items() if not _is_json(value))
        raise BillingRejected("bad_request", f"{wrong} cannot be sent as JSON: {error}") from None


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _refusal(response: httpx.Response) -> BillingError:
    """Return the error of a refusal. Only a response in Meterbridge's own form rejects a request permanently; a proxy's
    error page does not.
    """
    body, status = json_object(response), response.status_code
    reason = body["reason"] if isinstance(body.get("reason"), str) else ""
    detail = body["detail"] if isinstance(body.get("detail"), str) else ""
    if not reason:
        detail = f"an error of {shown_url(response.url)} that is not Meterbridge's: {_CHECK}"
    elif reason == "not_found":
        detail = f"{shown_url(response.url)} is no operation of Meterbridge: {_CHECK}"
    elif status == HTTPStatus.UNAUTHORIZED:
        detail = "Meterbridge does not know the API key (METERBRIDGE_API_KEY)"
    missing = status == HTTPStatus.NOT_FOUND and reason not in {"", "not_found"}
    kind: type[BillingError] = BillingUnavailable
    if missing or (reason and status in _WRONG):
        kind = BillingRejected
    elif reason and status in _UNAUTHORIZED:
        kind = BillingUnauthorized
    return kind(reason or f"http_{status}", detail, status=status)
