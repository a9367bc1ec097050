"""Billed usage is logged once a minute in sums; without a line nothing was billed."""

import asyncio
from decimal import Decimal
from typing import Any

from structlog.testing import capture_logs

from connectors.telemetry.minute_summary import EVERY_S, MinuteSummary
from schemas.ledger import Counters, Sum
from tests.support.virtual_time import run_virtually, virtual_now


def counters(folded: int, sealed: int) -> Counters:
    return Counters(folded=Sum(folded, Decimal("0.000145") * folded), sealed=Sum(sealed, Decimal("0.000145") * sealed))


def line(**fields: Any) -> dict[str, Any]:
    return {"event": "billed_last_minute", "log_level": "info", **fields}


def test_a_minute_without_usage_has_no_line() -> None:
    minute = MinuteSummary()
    with capture_logs() as logged:
        minute.emit()
        minute.counted(counters(5, 5), counters(5, 5))
        minute.emit()
    assert logged == []


def test_counted_sealed_and_delivered_usage_is_logged_with_its_dollars_and_then_reset() -> None:
    minute = MinuteSummary()
    with capture_logs() as logged:
        minute.counted(counters(10, 0), counters(1010, 0))
        minute.counted(counters(1010, 0), counters(1010, 400), Decimal("0.002"))
        for status, cents in [("completed", "1.45"), ("completed", "98.55"), ("processing", "7"), ("failed", "9")]:
            minute.settled(status, cents)
        minute.emit()
        minute.emit()
    assert logged == [
        line(
            calls_counted=1000,
            counted_usd="0.145",
            calls_sealed=400,
            sealed_usd="0.06",
            events_delivered=2,
            delivered_usd="1",
            events_put_off=1,
            events_failed=1,
        )
    ]


def test_the_summary_is_logged_each_minute_and_once_more_at_the_end() -> None:
    minute, result = MinuteSummary(), list[float]()

    async def main() -> None:
        telling = asyncio.ensure_future(minute.log_every())
        for _ in range(150):
            minute.settled("completed", "100")
            with capture_logs() as logged:
                await asyncio.sleep(1)
            result.extend(virtual_now() for _ in logged)
        telling.cancel()
        with capture_logs() as logged:
            await asyncio.wait({telling})
        assert logged == [line(events_delivered=30, delivered_usd="30")]

    run_virtually(main())
    assert result == [EVERY_S, 2 * EVERY_S]
