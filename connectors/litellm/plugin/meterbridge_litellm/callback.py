"""The callback that LiteLLM calls before a call, when the call is logged, and before its response ends.

LiteLLM logs a call concurrently with its response, so the client could get the response before the record is safe. Two
hooks delay the response until then: `async_post_call_response_headers_hook`, which LiteLLM awaits after logging has
begun and before it responds, and the iterator of a stream, which ends before the client's stream ends
(litellm/proxy/common_request_processing.py, 1.110). Each waits for `answer_wait` at most.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator
from typing import Any, Final

import httpx

from meterbridge_litellm.admission import Admission
from meterbridge_litellm.calls import PASS_THROUGH, Calls, call_id_of
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.http_clients import AsyncHttp, BlockingHttp
from meterbridge_litellm.levels import read as read_levels
from meterbridge_litellm.posting import Poster
from meterbridge_litellm.record import record
from meterbridge_litellm.refusal import Refused
from meterbridge_litellm.ring import Ring
from meterbridge_litellm.settings import AT_ONCE, PluginSettings

try:
    from litellm.integrations.custom_logger import CustomLogger
except ImportError:  # tests of the plugin need no LiteLLM
    CustomLogger = object

#: The maximum number of calls whose response has not yet waited for its record. Beyond this number, the oldest are
#: forgotten.
_MOST_WAITING: Final = 10_000
_CONNECTIONS: Final = 100
_LAST_EVENTS: Final = ("message_stop", "response.completed", "response.incomplete")


class _PROXY_Meterbridge(CustomLogger):  # noqa: N801  # LiteLLM logs to classes with `_PROXY_` in spite of `"no-log": true`
    """The callback of one process. `counts` has the outcomes of the records."""

    def __init__(self, settings: PluginSettings) -> None:
        super().__init__()
        if settings.levels:
            read_levels(settings.levels)  # a wrong file stops the proxy at its start
        self.counts = Counts()
        self._settings = settings
        self._keep = frozenset(part.strip() for part in settings.keep.split(","))
        self._admission: Admission | None = None
        self._calls = Calls()
        self._giving_back: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._start()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._start_in_child)

    def _start(self) -> None:
        closing = threading.Event()
        self._closing = closing
        http = BlockingHttp(self._settings.post_timeout)
        self._ring = Ring(self._settings, self.counts, Poster(self._settings, self.counts, http, closing.is_set).post)

    def _start_in_child(self) -> None:
        self._ring.forget()
        self.counts = Counts()
        self._start()

    def close(self) -> None:
        """Write and post the waiting records for at most `stop_seconds`; called when the process ends."""
        self._closing.set()
        self._ring.close()

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Give the call its power level, key and credit, if these are enabled. Raises: fastapi's HTTPException: the
        call is refused.
        """
        call_id = call_id_of(data)
        if self._settings.asks:
            await self._admit(user_api_key_dict, data, call_type, call_id)
        if call_id and call_type != PASS_THROUGH and self._settings.answer_after != AT_ONCE:
            self._waiting[call_id] = asyncio.get_running_loop().create_future()
            while len(self._waiting) > _MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
        return data

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Keep the record of a call that succeeded."""
        call_id = kwargs.get("litellm_call_id") or ""
        self._keep_record(kwargs, self._waiting.get(call_id))
        self._calls.end(call_id)

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Keep the record of a failed attempt, which may have a cost. A later attempt has the same call id, so no
        response waits for this record.
        """
        self._keep_record(kwargs, None)

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: Any = None,
        litellm_call_info: Any = None,
    ) -> None:
        """Delay the response of a call until its record is safe; a stream only begins here."""
        if response is None:
            self._waiting.pop(data.get("litellm_call_id") or "", None)
        elif not data.get("stream"):
            await self._until_kept(data)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Delay the end of a stream until its record is safe: its last event, or `data: [DONE]`, which follows the end
        of this iterator.
        """
        held = None
        async for part in response:
            if held is not None:
                yield held
            held = part if _is_last(part) else None
            if held is None:
                yield part
        # Behind guardrails LiteLLM logs only when this iterator has ended.
        if getattr(request_data.get("litellm_logging_obj"), "_on_deferred_stream_complete", None) is None:
            await self._until_kept(request_data)
        if held is not None:
            yield held

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: Any = None,
    ) -> None:
        """Handle a call whose attempts have all failed: no response waits for the call, and its reservation is
        released.
        """
        call_id = call_id_of(request_data)
        self._waiting.pop(call_id, None)
        decided = self._calls.end(call_id)
        if decided is not None and decided.reservation and self._admission is not None:
            task = asyncio.create_task(self._admission.credit.give_back(decided.reservation))
            decided.reservation = ""
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)

    async def _admit(self, user: Any, data: dict[str, Any], call_type: str, call_id: str) -> None:
        if self._admission is None:  # made here, because the client belongs to the event loop of the proxy
            self._admission = self._made_admission()
        try:
            decided = await self._admission.admit(user, data, call_type)
        except Refused as refused:
            from fastapi import HTTPException  # this module exists only in a proxy

            error = {"message": refused.detail, "type": refused.reason, "code": refused.reason, "param": None}
            raise HTTPException(refused.status, {"error": error}) from None
        if call_id:
            self._calls.begin(call_id, decided)

    def _made_admission(self) -> Admission:
        from litellm import model_cost

        url = (self._settings.api_url or self._settings.url).rstrip("/")
        headers = {"Authorization": f"Bearer {self._settings.api_key}"}
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        http = AsyncHttp(self._settings.api_timeout, base_url=url, headers=headers, limits=limits)
        return Admission(self._settings, self.counts, http, model_cost, _deployments)

    def _keep_record(self, kwargs: dict[str, Any], kept: "asyncio.Future[bool] | None") -> None:
        payload = kwargs.get("standard_logging_object")
        if payload is None:  # LiteLLM could not make the record
            self.counts.add("unreadable")
            self.counts.warn("usage_unreadable", call_type=str(kwargs.get("call_type")))
            return
        decided = self._calls.of(str(kwargs.get("litellm_call_id") or ""))
        marks = {"byok": True} if decided is not None and decided.own_key else {}
        level = (decided.level if decided is not None else "") if self._settings.levels else None
        try:
            made = record(payload, self._keep, marks, level)
        except Exception as error:  # noqa: BLE001  # LiteLLM would swallow it, and the call would vanish unseen
            self.counts.add("unreadable")
            self.counts.warn("usage_unreadable", call_type=str(kwargs.get("call_type")), error=type(error).__name__)
            return
        self._ring.append(made, kept)

    async def _until_kept(self, data: dict[str, Any]) -> None:
        call_id = data.get("litellm_call_id") or ""
        if (kept := self._waiting.get(call_id)) is None:
            return
        if not kept.done():
            await asyncio.wait((kept,), timeout=self._settings.answer_wait)
        if self._waiting.get(call_id) is kept:
            del self._waiting[call_id]
        if not kept.done():
            self.counts.add("unconfirmed")
            self.counts.warn("answered_before_its_record", call_type=str(data.get("call_type")))


def _deployments(model: str, team: str | None) -> list[dict[str, Any]]:
    """Return the deployments of a model group in the proxy's router: the team's own and those of all."""
    from litellm.proxy import proxy_server

    router = proxy_server.llm_router
    if router is None:
        return []
    of = router.registry().deployments if hasattr(router, "registry") else router.get_model_list
    return [*(of(model) or ()), *((of(model, team_id=team) or ()) if team else ())]


def _is_last(part: Any) -> bool:
    """Return whether a part is the last event of a stream of `/v1/messages` or `/v1/responses`, which need not end with
    `[DONE]`.
    """
    if isinstance(part, bytes):
        return b'"message_stop"' in part
    if isinstance(part, str):
        return '"message_stop"' in part
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return kind in _LAST_EVENTS
