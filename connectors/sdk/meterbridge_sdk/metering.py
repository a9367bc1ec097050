"""Makes the usage event of a request and its response, in the same way for every web framework."""

import inspect
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from meterbridge_sdk.client import api_call_properties
from meterbridge_sdk.errors import BillingError
from meterbridge_sdk.events import UsageEvent, usage_event
from meterbridge_sdk.identity import IdentifyOrg, get_current_org, member
from meterbridge_sdk.logs import log_event
from meterbridge_sdk.recorder import UsageRecorder, event_fields
from meterbridge_sdk.request_ids import ID_HEADERS, REQUEST_ID, RequestIds, given_id, transaction_id
from meterbridge_sdk.service import running_recorder, running_service
from meterbridge_sdk.wire import API_CALL

#: Response headers with the number of tokens of the call, and with its model.
TOKENS_USED: Final = "X-Tokens-Used"
MODEL_USED: Final = "X-Model-Used"
_FIRST_ERROR: Final = 400
#: Maximum characters of values that clients choose; an event may have 4096 bytes.
_MAX_PATH, _MAX_MODEL = 500, 255
#: Digits of a number of tokens.
_MAX_TOKEN_DIGITS: Final = 18


class ServedRequest(NamedTuple):
    """A request whose response has begun.

    Fields:
        request_headers, response_headers: names in lower case are found.
        generated_id: the request's id if neither the request nor the response has one.
    """

    method: str
    path: str
    request_headers: Mapping[str, str]
    status: int
    response_headers: Mapping[str, str]
    generated_id: str


class RequestMeter:
    """Turns served requests into usage events.

    Args:
        recorder: takes the events; None = that of the running `org_billing_service`.
        identify: gives the org of a request; None = the request is not billed.
        id_headers: request headers that hold a request's id; the first one that is not empty counts.

    Attributes:
        new_id: makes an id for a request, see `RequestIds`.

    Raises:
        TypeError: an argument is not of its type; `identify` is a coroutine function.
    """

    def __init__(
        self,
        recorder: UsageRecorder | None = None,
        identify: IdentifyOrg = get_current_org,
        id_headers: Sequence[str] = ID_HEADERS,
    ) -> None:
        if recorder is not None and not isinstance(recorder, UsageRecorder):
            raise TypeError("recorder must be a UsageRecorder or None")
        if not callable(identify) or inspect.iscoroutinefunction(identify):
            raise TypeError("identify must be a function, and not a coroutine function")
        if isinstance(id_headers, str) or not all(isinstance(name, str) for name in id_headers):
            raise TypeError("id_headers must be a sequence of header names, for example ('X-Request-ID',)")
        self._recorder = recorder
        self._identify = identify
        self._id_headers = tuple(id_headers)
        self.new_id = RequestIds(time.time_ns)

    def id_for_response(self, request_headers: Mapping[str, str], generated_id: str) -> str | None:
        """Return the `X-Request-ID` that the response must have; None if the client has sent its own id."""
        return generated_id if given_id(request_headers, self._id_headers) is None else None

    def record(self, request: Any, served: ServedRequest) -> None:
        """Record the request if an org sent it. This never raises, because billing must not break the response.

        Args:
            request: what `identify` gets.
            served: the request and its response.
        """
        known: dict[str, object] = {"method": served.method, "path": served.path, "status": served.status}
        try:
            event = self._event(request, served, known)
            if event is not None:
                known |= event_fields(event)
                (self._recorder or running_service().recorder).put(event)
        except Exception as error:  # noqa: BLE001  # logged with its traceback, and counted
            reason = error.reason if isinstance(error, BillingError) else type(error).__name__
            log_event(logging.ERROR, "usage_dropped", error, reason=reason, **known)
            if (recorder := self._recorder or running_recorder()) is not None:
                recorder.counts.dropped += 1

    def _event(self, request: Any, served: ServedRequest, known: dict[str, object]) -> UsageEvent | None:
        """Return the event of a request; None if no org sent it, or if it failed without using tokens.

        `known` gets what is found out about the request, so that a line about its loss has it.
        """
        tokens = _tokens(served)
        if served.status >= _FIRST_ERROR and not tokens:
            return None
        header, value = given_id(served.request_headers, self._id_headers) or (
            REQUEST_ID,
            served.response_headers.get(REQUEST_ID.lower(), ""),
        )
        value = value or served.generated_id
        model = served.response_headers.get(MODEL_USED.lower(), "")[:_MAX_MODEL] or None
        known |= {"request_id": value, "tokens": tokens, "model": model}
        org = self._identify(request)
        if org is None:
            return None
        known |= {"org_id": member(org, "org_id"), "user_id": member(org, "user_id")}
        if not hasattr(org, "org_id"):
            if inspect.iscoroutine(org):
                org.close()
            raise TypeError(f"identify must return a CurrentOrg or None, and returned {type(org).__name__}")
        name = transaction_id(org.org_id, org.user_id, served.method, served.path, header, value)
        known["transaction_id"] = name
        properties = api_call_properties(served.path[:_MAX_PATH], org.user_id, tokens, model)
        return usage_event(org.org_id, API_CALL, name, properties, None, time.time_ns() / 1e9)


def _tokens(served: ServedRequest) -> int:
    """Return the number of tokens; 0 if the response has none. A value that is not a number is logged and counts as 0."""
    text = served.response_headers.get(TOKENS_USED.lower(), "").strip()
    if text.isascii() and text.isdigit():
        return int(text[:_MAX_TOKEN_DIGITS])
    if text:
        log_event(logging.ERROR, "invalid_token_count", method=served.method, path=served.path, header=TOKENS_USED)
    return 0
