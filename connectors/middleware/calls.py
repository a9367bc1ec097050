"""What is recorded of a request and its answer; the same whatever the framework."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from connectors.lago.metered import MeteredEvent, metered
from connectors.lago.orgs import API_CALL, call_properties
from connectors.middleware.recorder import Recorder
from connectors.middleware.request_ids import ID_HEADERS, RETURNED, MadeIds, given_id, transaction_id
from connectors.middleware.who import CurrentOrg, get_current_org
from schemas.errors import ConfigurationError

#: Of the answer: how many tokens the call took, and of which model.
TOKENS_USED, MODEL_USED = "X-Tokens-Used", "X-Model-Used"
_FIRST_ERROR = 400
#: Characters of what others choose: an event has room for some 4000.
_LONGEST_PATH, _LONGEST_MODEL = 500, 255

_log = structlog.get_logger(__name__)
_recording: list[Recorder] = []

Who = Callable[[Any], CurrentOrg | None]


def record_with(recorder: Recorder | None) -> None:
    """Let middleware that was given no recorder use this one; None = none any more."""
    _recording[:] = [] if recorder is None else [recorder]


class Answered(NamedTuple):
    """A request that was answered.

    Fields:
        asked, answered: headers, to be asked in lower case.
        made: the id that the request gets if neither it nor its answer has one.
    """

    method: str
    path: str
    asked: Mapping[str, str]
    status: int
    answered: Mapping[str, str]
    made: str


class Billing:
    """How answers become recorded calls.

    Args:
        recorder: None = the one of `record_with`.
        who: the org of a request; None = nobody is billed.
        id_headers: of the request; the first that is there makes its id.
        now_ns: nanoseconds since 1970 UTC.
    """

    def __init__(
        self,
        recorder: Recorder | None = None,
        who: Who = get_current_org,
        id_headers: Sequence[str] = ID_HEADERS,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._recorder = recorder
        self._who = who
        self._id_headers = tuple(id_headers)
        self._now_ns = now_ns
        self.made_id = MadeIds(now_ns)

    def returned_id(self, asked: Mapping[str, str], made: str) -> str | None:
        """The `X-Request-ID` that the answer must carry; None where the client has an id of its own."""
        return made if given_id(asked, self._id_headers) is None else None

    def note(self, request: Any, call: Answered) -> None:
        """Record the call if it is some org's; never raises, as the answer is not to suffer."""
        try:
            event = self._event(request, call)
            if event is not None:
                self._taker().put(event)
        except Exception:  # noqa: BLE001  # told in full: neither lost without a word nor the client's trouble
            _log.exception("api_call_lost", method=call.method, path=call.path, status=call.status)

    def _event(self, request: Any, call: Answered) -> MeteredEvent | None:
        """None for a request of nobody, and for a refusal that took no tokens."""
        org = self._who(request)
        tokens = _tokens(call)
        if org is None or (call.status >= _FIRST_ERROR and not tokens):
            return None
        header, value = given_id(call.asked, self._id_headers) or (RETURNED, call.answered.get(RETURNED.lower(), ""))
        name = transaction_id(org.org_id, org.user_id, call.method, call.path, header, value or call.made)
        model = call.answered.get(MODEL_USED.lower(), "")[:_LONGEST_MODEL] or None
        properties = call_properties(call.path[:_LONGEST_PATH], org.user_id, tokens, model)
        return metered(org.org_id, API_CALL, name, properties, None, self._now_ns() // 1000)

    def _taker(self) -> Recorder:
        if self._recorder is not None:
            return self._recorder
        if not _recording:
            raise ConfigurationError("no_recorder", "no recorder was given, and org_billing_service is not running")
        return _recording[0]


def _tokens(call: Answered) -> int:
    """0 where the answer says nothing, or nothing that is a number; the latter is told."""
    said = call.answered.get(TOKENS_USED.lower(), "").strip()
    if said.isascii() and said.isdigit():
        return int(said[:18])
    if said:
        _log.error("tokens_unreadable", method=call.method, path=call.path, header=TOKENS_USED)
    return 0
