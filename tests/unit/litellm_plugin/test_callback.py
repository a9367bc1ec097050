"""The hooks, called like LiteLLM 1.110 calls them: an answer ends when its record is durable, and never waits longer
than the limit.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from meterbridge_litellm.admission import Admission
from meterbridge_litellm.callback import _PROXY_Meterbridge
from meterbridge_litellm.lane import frames
from meterbridge_litellm.settings import PluginSettings
from tests.support.eventually import within

PAYLOAD = {"id": "chatcmpl-1", "litellm_call_id": "call-1", "status": "success", "response_cost": 0.1}


def handling(folder: Path, answer_wait: float) -> Iterator[_PROXY_Meterbridge]:
    settings = PluginSettings(
        url="http://127.0.0.1:1",
        ring_path=str(folder),
        token="t",
        answer_wait=answer_wait,
        stop_seconds=0.1,
        post_timeout=0.1,
    )
    created = _PROXY_Meterbridge(settings)
    yield created
    created.close()


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[_PROXY_Meterbridge]:
    """A callback whose answers wait for an hour: an answer that comes did not wait, or its record came."""
    yield from handling(tmp_path, 3600)


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[_PROXY_Meterbridge]:
    yield from handling(tmp_path, 0.2)


async def begin_call(handler: _PROXY_Meterbridge, **data: Any) -> dict[str, Any]:
    request = {"litellm_call_id": "call-1", "model": "gpt", **data}
    assert await handler.async_pre_call_hook(SimpleNamespace(), None, request, "acompletion") is request
    return request


async def logged(handler: _PROXY_Meterbridge, after_s: float = 0.0) -> None:
    await asyncio.sleep(after_s)
    kwargs = {"litellm_call_id": "call-1", "standard_logging_object": PAYLOAD}
    await handler.async_log_success_event(kwargs=kwargs, response_obj=None, start_time=None, end_time=None)


async def delay_of_answer(handler: _PROXY_Meterbridge, data: dict[str, Any], response: Any = "answer") -> float:
    """The seconds for which the answer was delayed. Raises: TimeoutError: it waits for a record that does not come."""
    began = time.monotonic()
    async with within(5):
        await handler.async_post_call_response_headers_hook(data=data, user_api_key_dict=None, response=response)
    return time.monotonic() - began


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("*.seg"))


async def test_an_answer_waits_for_its_record(handler: _PROXY_Meterbridge, tmp_path: Path) -> None:
    data = await begin_call(handler)
    logging = asyncio.create_task(logged(handler, 0.05))
    assert await delay_of_answer(handler, data) > 0.04
    assert b"chatcmpl-1" in on_disk(tmp_path)
    await logging
    assert handler.counts.all() == {"kept": 1}


async def test_an_answer_does_not_wait_longer_than_the_setting_for_a_call_that_litellm_never_logs(
    impatient: _PROXY_Meterbridge,
) -> None:
    assert await delay_of_answer(impatient, await begin_call(impatient)) >= 0.2
    assert impatient.counts.all() == {"unconfirmed": 1}


async def test_an_answer_whose_record_is_already_durable_does_not_wait(handler: _PROXY_Meterbridge) -> None:
    data = await begin_call(handler)
    await logged(handler)
    await delay_of_answer(handler, data)


async def test_the_start_of_a_stream_and_a_failed_call_do_not_wait(handler: _PROXY_Meterbridge) -> None:
    await delay_of_answer(handler, await begin_call(handler, stream=True))
    await delay_of_answer(handler, await begin_call(handler), response=None)
    assert handler.counts.all() == {}


async def test_a_failed_attempt_is_recorded_and_not_confused_with_the_success_after_it(
    handler: _PROXY_Meterbridge, tmp_path: Path
) -> None:
    data = await begin_call(handler)
    kwargs = {"litellm_call_id": "call-1", "standard_logging_object": {**PAYLOAD, "status": "failure"}}
    await handler.async_log_failure_event(kwargs=kwargs, response_obj=None, start_time=None, end_time=None)
    logging = asyncio.create_task(logged(handler, 0.05))
    assert await delay_of_answer(handler, data) > 0.04
    await logging
    assert on_disk(tmp_path).count(b"call-1") == 2


async def chunks(*all_of_them: Any) -> AsyncIterator[Any]:
    for part in all_of_them:
        yield part


@pytest.mark.parametrize(
    "last",
    [
        b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
        {"type": "response.completed"},
        SimpleNamespace(type="response.incomplete"),
    ],
)
async def test_only_the_last_event_of_a_stream_waits(handler: _PROXY_Meterbridge, last: Any) -> None:
    data = await begin_call(handler, stream=True)
    stream = handler.async_post_call_streaming_iterator_hook(
        user_api_key_dict=None, response=chunks(b"one", {"type": "two"}, last), request_data=data
    )
    is_logged = asyncio.Event()

    async def log() -> None:
        await asyncio.sleep(0.05)
        is_logged.set()
        await logged(handler)

    seen = list[tuple[Any, bool]]()
    async with within(5):
        async for part in stream:
            seen.append((part, is_logged.is_set()))
            if len(seen) == 2:
                logging = asyncio.create_task(log())
        await logging
    assert seen == [(b"one", False), ({"type": "two"}, False), (last, True)]


async def test_the_end_of_every_other_kind_of_stream_waits(handler: _PROXY_Meterbridge, tmp_path: Path) -> None:
    data = await begin_call(handler, stream=True)
    logging = asyncio.create_task(logged(handler, 0.05))
    stream = handler.async_post_call_streaming_iterator_hook(None, chunks("a", "b"), data)
    async with within(5):
        assert [part async for part in stream] == ["a", "b"]
    assert b"chatcmpl-1" in on_disk(tmp_path)
    await logging


async def test_a_stream_that_litellm_logs_after_its_guardrails_is_not_delayed(handler: _PROXY_Meterbridge) -> None:
    data = await begin_call(
        handler, stream=True, litellm_logging_obj=SimpleNamespace(_on_deferred_stream_complete=print)
    )
    async with within(5):
        stream = handler.async_post_call_streaming_iterator_hook(None, chunks("a"), data)
        assert [part async for part in stream] == ["a"]


async def test_a_call_without_a_payload_is_counted_and_logged(
    handler: _PROXY_Meterbridge, caplog: pytest.LogCaptureFixture
) -> None:
    await handler.async_log_success_event(kwargs={}, response_obj=None, start_time=None, end_time=None)
    assert handler.counts.all() == {"unreadable": 1}
    assert "usage_unreadable" in caplog.text


@pytest.mark.parametrize(
    "hostile", [{"request_tags": ["x"], "metadata": {"spend_logs_metadata": {("a", "b"): 1}}}, "deep"]
)
async def test_a_call_whose_record_cannot_be_built_is_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hostile: Any
) -> None:
    """LiteLLM swallows a callback's error: the call would disappear without a trace."""
    deep: Any = "canary"
    for _ in range(100_000):
        deep = [deep]
    payload = {**PAYLOAD, **(hostile if isinstance(hostile, dict) else {"request_tags": deep})}
    created = _PROXY_Meterbridge(
        PluginSettings(
            url="http://127.0.0.1:1", ring_path=str(tmp_path), token="t", keep="tags,metadata", stop_seconds=0.1
        )
    )
    await created.async_log_success_event({"standard_logging_object": payload}, None, None, None)
    created.close()
    assert created.counts.all() == {"unreadable": 1}
    assert "usage_unreadable" in caplog.text and "canary" not in caplog.text
    while isinstance(deep, list):
        deep = deep.pop()


async def test_calls_that_never_end_are_forgotten(handler: _PROXY_Meterbridge) -> None:
    for number in range(10_050):
        await handler.async_pre_call_hook(None, None, {"litellm_call_id": str(number)}, "acompletion")
    assert len(handler._waiting) == 10_000


def test_the_callbacks_class_name_makes_litellm_log_to_it_even_with_no_log() -> None:
    """`should_run_callback` in litellm/litellm_core_utils/litellm_logging.py; with a real proxy: `make plugin-trial`."""
    assert "_PROXY_" in _PROXY_Meterbridge.__name__


def test_litellm_finds_each_hook_in_the_class_itself() -> None:
    """LiteLLM looks into the class's own `__dict__` (`callback_capabilities` in litellm/proxy/utils.py)."""
    assert {
        "async_pre_call_hook",
        "async_log_success_event",
        "async_log_failure_event",
        "async_post_call_response_headers_hook",
        "async_post_call_streaming_iterator_hook",
    } <= {*vars(_PROXY_Meterbridge)}


@pytest.fixture
def deciding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[_PROXY_Meterbridge, list[tuple[str, str]]]]:
    """A callback that asks Meterbridge about calls, without a proxy, and the requests that it made."""
    (tmp_path / "levels.json").write_text('{"eco": {"params": {"max_tokens": 7}}}')
    settings = PluginSettings(
        url="http://127.0.0.1:1",
        ring_path=str(tmp_path / "ring"),
        token="t",
        stop_seconds=0.1,
        post_timeout=0.1,
        api_key="k",
        authorize="on",
        own_keys="billed",
        levels=str(tmp_path / "levels.json"),
    )
    seen: list[tuple[str, str]] = []

    def api(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path.rpartition("/")[2]))
        if seen[-1][1] == "resolve":
            return httpx.Response(200, json={"user_id": "ada", "api_key": "sk-of-ada-0123456789"})
        return httpx.Response(200, json={"authorized": True, "reservation_id": "r-1"})

    created = _PROXY_Meterbridge(settings)
    http = httpx.AsyncClient(base_url="http://m", transport=httpx.MockTransport(api))
    marked = [{"model_info": {"own_key_provider": "openai"}}]
    monkeypatch.setattr(
        created, "_made_admission", lambda: Admission(settings, created.counts, http, {}, lambda _model, _team: marked)
    )
    yield created, seen
    created.close()


async def admitted(handler: _PROXY_Meterbridge, **data: Any) -> dict[str, Any]:
    request = {"litellm_call_id": "call-1", "model": "gpt", **data}
    user = SimpleNamespace(user_id="ada", team_id=None, metadata=None)
    await handler._admit(user, request, "acompletion", "call-1")
    return request


async def test_the_record_says_whose_key_paid_and_which_power_level_the_call_got(
    deciding: tuple[_PROXY_Meterbridge, list[tuple[str, str]]], tmp_path: Path
) -> None:
    """For the successful attempt and a failed one; what the client itself says about a level does not count."""
    handler, _ = deciding
    await admitted(handler, metadata={"power_level": "eco"})
    payload = {
        **PAYLOAD,
        "request_tags": ["power:precision"],
        "metadata": {"spend_logs_metadata": {"power_level": "x"}},
    }
    for status in ("failure", "success"):
        kwargs = {"litellm_call_id": "call-1", "standard_logging_object": {**payload, "status": status}}
        await (handler.async_log_failure_event if status == "failure" else handler.async_log_success_event)(
            kwargs, None, None, None
        )
    other = {"litellm_call_id": "call-2", "standard_logging_object": {**payload, "litellm_call_id": "call-2"}}
    await handler.async_log_success_event(other, None, None, None)
    found = [json.loads(record) for record, _ in frames(on_disk(tmp_path / "ring"))]
    assert [(one.get("byok"), one["metadata"].get("power_level")) for one in found] == [(True, "eco")] * 2 + [
        (None, None)
    ]
    assert not any(one["metadata"]["spend_logs_metadata"] for one in found)
    assert b"precision" not in on_disk(tmp_path / "ring") and b"sk-of-ada" not in on_disk(tmp_path / "ring")


async def test_a_call_that_failed_finally_releases_its_reservation_once(
    deciding: tuple[_PROXY_Meterbridge, list[tuple[str, str]]],
) -> None:
    handler, seen = deciding
    data = await admitted(handler)
    for _ in range(2):
        await handler.async_post_call_failure_hook(data, RuntimeError(), None)
        await asyncio.gather(*handler._giving_back)
    assert [path for method, path in seen if method == "DELETE"] == ["r-1"]


async def test_a_failed_attempt_releases_no_reservation(
    deciding: tuple[_PROXY_Meterbridge, list[tuple[str, str]]],
) -> None:
    handler, seen = deciding
    await admitted(handler)
    kwargs = {"litellm_call_id": "call-1", "standard_logging_object": {**PAYLOAD, "status": "failure"}}
    await handler.async_log_failure_event(kwargs, None, None, None)
    await asyncio.gather(*handler._giving_back)
    assert "DELETE" not in {method for method, _ in seen}
