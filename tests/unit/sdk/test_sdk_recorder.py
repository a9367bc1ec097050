"""Calls wait in memory for Meterbridge: the queue is bounded, sending is retried, and a loss is always logged."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from meterbridge_sdk.errors import BillingRejected, BillingUnauthorized, BillingUnavailable
from meterbridge_sdk.events import UsageEvent
from meterbridge_sdk.recorder import RecorderCounts, UsageRecorder
from tests.support.eventually import within
from tests.support.sdk_logs import sdk_logs
from tests.support.usage_api import Sleeps


def call(number: int | str, org_id: str = "org_1") -> UsageEvent:
    return UsageEvent(org_id, f"tx-{number}", "api_call", 0, {"tokens": "1"})


@dataclass
class Sink:
    """Stores each event once; before that it raises the errors in `failures` for it."""

    failures: dict[str, list[BaseException]] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    closed: bool = False

    async def record(self, event: UsageEvent) -> None:
        await asyncio.sleep(0)
        if waiting := self.failures.get(event.transaction_id):
            raise waiting.pop(0)
        if self.closed:
            raise BillingUnavailable("http_503", "away")
        self.stored[event.transaction_id] = self.stored.get(event.transaction_id, 0) + 1


async def until(true: Callable[[], bool]) -> None:
    async with within(5):
        while not true():
            await asyncio.sleep(0)


async def test_the_caller_does_not_wait_and_every_call_is_stored_once() -> None:
    sink = Sink()
    recorder = UsageRecorder(sink.record)
    for number in range(100):
        recorder.put(call(number))
    assert (sink.stored, recorder.waiting) == ({}, 100)
    await recorder.close()
    assert sink.stored == {f"tx-{number}": 1 for number in range(100)}
    assert (recorder.counts, recorder.waiting) == (RecorderCounts(recorded=100), 0)


async def test_a_call_that_already_waits_is_not_queued_twice() -> None:
    sink = Sink()
    recorder = UsageRecorder(sink.record)
    recorder.put(call(1))
    recorder.put(call(1))
    await recorder.close()
    assert recorder.counts == RecorderCounts(recorded=1)


async def test_two_orgs_with_one_transaction_id_are_two_events() -> None:
    taken: list[str] = []

    async def send(event: UsageEvent) -> None:
        taken.append(event.org_id)

    recorder = UsageRecorder(send)
    recorder.put(call(1))
    recorder.put(call(1, "org_2"))
    await recorder.close()
    assert sorted(taken) == ["org_1", "org_2"]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_an_event_is_stored_in_the_end_after_any_temporary_errors(failures: list[int]) -> None:
    async def run() -> None:
        sink = Sink({f"tx-{n}": [BillingUnavailable("timeout")] * times for n, times in enumerate(failures)})
        recorder = UsageRecorder(sink.record, sleep=Sleeps())
        for number in range(len(failures)):
            recorder.put(call(number))
        await recorder.close()
        assert sink.stored == {f"tx-{number}": 1 for number in range(len(failures))}
        assert recorder.counts == RecorderCounts(recorded=len(failures), retried=sum(failures))

    asyncio.run(run())


async def test_waits_between_attempts_grow() -> None:
    sleeps = Sleeps()
    sink = Sink({"tx-1": [BillingUnavailable("timeout")] * 8})
    recorder = UsageRecorder(sink.record, sleep=sleeps)
    recorder.put(call(1))
    await until(lambda: recorder.waiting == 0)
    assert sleeps.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


async def test_a_refused_event_is_logged_with_everything_needed_to_repair_it_and_does_not_block_others() -> None:
    sink = Sink({"tx-1": [BillingRejected("bad_event", "why")], "tx-2": [ZeroDivisionError()]})
    recorder = UsageRecorder(sink.record, workers=1)
    with sdk_logs() as lines:
        for number in (1, 2, 3):
            recorder.put(call(number))
        await recorder.close()
    assert sink.stored == {"tx-3": 1}
    assert recorder.counts == RecorderCounts(recorded=1, rejected=2)
    result = [line for line in lines if line["event"] == "usage_rejected"]
    assert [(line["transaction_id"], line["reason"]) for line in result] == [
        ("tx-1", "bad_event"),
        ("tx-2", "ZeroDivisionError"),
    ]
    assert {"org_id", "event_code", "timestamp", "properties"} <= result[0].keys()
    assert (result[0]["error"], isinstance(result[1]["error"], ZeroDivisionError)) == (None, True)


async def test_an_event_waits_for_a_key_that_is_not_known_yet_but_not_for_a_key_without_the_right() -> None:
    """A new key may take half a second to be known to every Meterbridge process; a key's rights never change."""
    unknown = BillingUnauthorized("unknown_token", status=401)
    sink = Sink({"tx-1": [unknown] * 3, "tx-2": [BillingUnauthorized("other_org", status=403)]})
    recorder = UsageRecorder(sink.record, sleep=Sleeps())
    for number in (1, 2, 3):
        recorder.put(call(number))
    await recorder.close()
    assert sink.stored == {"tx-1": 1, "tx-3": 1}
    assert recorder.counts == RecorderCounts(recorded=2, retried=3, rejected=1)


async def test_a_request_that_a_library_cancels_is_retried_and_ends_no_worker() -> None:
    """An ended worker would leave its event waiting until the process ends, without a log line."""
    sink = Sink({"tx-1": [asyncio.CancelledError()], "tx-2": [asyncio.CancelledError()]})
    recorder = UsageRecorder(sink.record, workers=1, sleep=Sleeps())
    recorder.put(call(1))
    recorder.put(call(2))
    await until(lambda: not recorder.waiting)
    await recorder.close()
    assert (sink.stored, recorder.counts.retried) == ({"tx-1": 1, "tx-2": 1}, 2)


async def test_a_full_queue_drops_a_call_with_a_log_line_and_never_delays_an_answer() -> None:
    sink = Sink(closed=True)
    recorder = UsageRecorder(sink.record, max_waiting=10)
    with sdk_logs() as lines:
        for number in range(12):
            recorder.put(call(number))
    assert (recorder.waiting, recorder.counts.dropped) == (10, 2)
    lost = [(line["transaction_id"], line["reason"]) for line in lines if line["event"] == "usage_dropped"]
    assert lost == [("tx-10", "queue_full"), ("tx-11", "queue_full")]
    sink.closed = False
    await recorder.close()
    assert len(sink.stored) == 10


async def test_an_event_not_stored_within_the_time_limit_is_dropped_with_a_log_line() -> None:
    recorder = UsageRecorder(Sink(closed=True).record, workers=2)
    for number in range(5):
        recorder.put(call(number))
    with sdk_logs() as lines:
        await recorder.close(flush_timeout_s=0.05)
        recorder.put(call("late"))
    lost = sorted((line["transaction_id"], line["reason"]) for line in lines if line["event"] == "usage_dropped")
    assert lost == [*((f"tx-{number}", "shutdown") for number in range(5)), ("tx-late", "closed")]
    assert (recorder.counts.dropped, recorder.waiting) == (6, 0)


async def test_closing_cuts_a_long_wait_short() -> None:
    """A worker that sleeps half a minute must not lose what a second attempt would have stored."""
    sink = Sink(closed=True)
    waits: list[float] = []

    async def forever(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0 if recorder_closes else 3600)

    recorder, recorder_closes = UsageRecorder(sink.record, sleep=forever), False
    recorder.put(call(1))
    await until(lambda: waits == [0.5])
    sink.closed, recorder_closes = False, True
    await recorder.close(flush_timeout_s=5)
    assert (sink.stored, recorder.counts.dropped) == ({"tx-1": 1}, 0)


async def test_a_call_that_always_fails_is_given_up_and_logged() -> None:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        await asyncio.sleep(0)

    recorder = UsageRecorder(Sink(closed=True).record, max_age_s=10, clock=lambda: now[0], sleep=sleep)
    with sdk_logs() as lines:
        recorder.put(call(1))
        await until(lambda: recorder.waiting == 0)
    assert recorder.counts == RecorderCounts(dropped=1, retried=5)
    assert lines[-1]["reason"] == "http_503"
    assert now[0] <= 10


async def test_an_outage_and_its_end_are_each_logged_once() -> None:
    sink = Sink(closed=True)
    recorder = UsageRecorder(sink.record, sleep=Sleeps())
    with sdk_logs() as lines:
        for number in range(20):
            recorder.put(call(number))
        await until(lambda: recorder.counts.retried > 100)
        sink.closed = False
        await recorder.close()
    assert [line["event"] for line in lines] == ["recording_interrupted", "recording_resumed"]
