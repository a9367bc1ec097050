"""Keeps the decisions about calls from their credit check until their record."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

PASS_THROUGH: Final = "pass_through_endpoint"  # noqa: S105  # no password
#: Kinds of calls that have a cost but no model.
_PAID: Final = frozenset(
    {
        *(PASS_THROUGH, "allm_passthrough_route", "acreate_batch", "create_batch", "asearch", "avector_store_search"),
        *("avideo_remix", "avideo_edit", "avideo_extension", "acreate_fine_tuning_job", "arun_thread", "aingest"),
        *("acreate_interaction", "acreate_realtime_client_secret", "acreate_realtime_translation_client_secret"),
        *("acreate_realtime_transcription_session", "arealtime_calls", "arealtime_translation_calls"),
    }
)
#: These calls read the result of an earlier call, and may name its model.
_FREE: Final = frozenset(
    {
        *("aretrieve_batch", "retrieve_batch", "acancel_batch", "alist_batches", "acreate_file", "afile_content"),
        *("afile_retrieve", "afile_delete", "afile_list", "aget_responses", "adelete_responses", "acancel_responses"),
        *("alist_input_items", "avideo_status", "avideo_content", "avideo_list", "avideo_delete", "apply_guardrail"),
    }
)
#: Calls that LiteLLM 1.110 routes by the model of the request, with its key if it has one (`make plugin-trial ARGS=--endpoints` tries
#: each). For other kinds the record would contain a level or a key that the call did not have. Videos are not listed,
#: because they are fetched without the key.
ROUTED: Final = frozenset(
    {
        *("acompletion", "atext_completion", "text_completion", "anthropic_messages", "aresponses", "aembedding"),
        *("image_generation", "aimage_edit", "transcription", "aspeech", "rerank", "agenerate_content"),
        "agenerate_content_stream",
    }
)
_HEADER: Final = "x-litellm-call-id"
_MOST: Final = 50_000
#: A failed attempt can be logged after its call has ended.
_KEPT_S: Final = 60.0


@dataclass(slots=True)
class CallDecision:
    """The decisions about one call.

    Fields:
        level: the power level; `""` = none.
        own_key: the call uses the user's own key at the provider.
        reservation: id of the credit reservation; `""` = there is none.
    """

    level: str = ""
    own_key: bool = False
    reservation: str = ""


class Calls:
    """The decisions by call id. If there are too many open calls, the oldest are forgotten."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._decided: OrderedDict[str, CallDecision] = OrderedDict()
        self._ended: deque[tuple[float, str]] = deque()

    def begin(self, call_id: str, decided: CallDecision) -> None:
        """Keep the decisions about a call that begins."""
        self._decided[call_id] = decided
        if len(self._decided) > _MOST:
            self._decided.popitem(last=False)

    def of(self, call_id: str) -> CallDecision | None:
        """Return the decision; None = the call is unknown."""
        return self._decided.get(call_id)

    def end(self, call_id: str) -> CallDecision | None:
        """Register that the call has ended; it is forgotten a minute later."""
        now = self._monotonic()
        while self._ended and self._ended[0][0] <= now - _KEPT_S:
            self._decided.pop(self._ended.popleft()[1], None)
        if (decided := self._decided.get(call_id)) is not None:
            self._ended.append((now, call_id))
        return decided


def call_id_of(data: Mapping[str, Any]) -> str:
    """Return the id under which LiteLLM logs the call; `""` = it has no id yet.

    The body of a pass-through endpoint is the client's, so an id in it means nothing; LiteLLM's own object has the id.
    """
    logging = data.get("litellm_logging_obj")
    made = getattr(logging, "litellm_call_id", None)
    return str(made or data.get("litellm_call_id") or "")


def may_cost(data: Mapping[str, Any], call_type: str) -> bool:
    """Return whether a request is a call that has a cost."""
    return call_type in _PAID or (bool(data.get("model")) and call_type not in _FREE)


def header_of(data: Mapping[str, Any], name: str) -> str | None:
    """Return a header of the client's request, if LiteLLM gives the headers to its hooks."""
    request = data.get("proxy_server_request")
    headers = request.get("headers") if isinstance(request, Mapping) else None
    if not isinstance(headers, Mapping):
        return None
    return next((str(value) for given, value in headers.items() if str(given).lower() == name), None)


def id_is_chosen(data: Mapping[str, Any]) -> bool:
    """Return whether the client chose the id of its call: then it could use one reservation for many calls."""
    return header_of(data, _HEADER) is not None
