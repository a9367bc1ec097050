"""The sums of analytics are refreshed by day. A day that fails keeps its old sums, is counted, and waits longer after
each attempt.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

import pytest
from prometheus_client import CollectorRegistry

from connectors.operations import usage_summary
from connectors.operations.usage_summary import EVERY_S, MOST_REST_S, SummaryRefresh
from connectors.postgres.pool import Database
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors
from schemas.errors import Unavailable
from tests.integration.test_analytics import at, call
from tests.support.accounts import PROJECTOR, as_role, owned_database
from tests.support.database import rows
from tests.support.history import TOPICS
from tests.support.projection import Writer

BAD, GOOD = date(2026, 11, 20), date(2026, 11, 21)
#: Sums of a day are refused, or take a minute.
BREAK = """
CREATE FUNCTION break_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what}; RETURN NEW; END $$;
"""
TRIGGER = """
CREATE TRIGGER break_it BEFORE INSERT ON usage_by_dimension FOR EACH ROW WHEN (NEW.day = '2026-11-20') EXECUTE FUNCTION break_it()
"""


@dataclass
class RefreshMetrics:
    """A clock, and the metrics that a refresher writes."""

    now: float = 1000.0
    failed: list[str] = field(default_factory=list)
    days: list[int] = field(default_factory=list)

    def refresher(self, database: Database) -> SummaryRefresh:
        return SummaryRefresh(database, self.failed.append, self.days.append, monotonic=lambda: self.now)

    async def again(self, url: str, refresh: SummaryRefresh, later_s: float = EVERY_S) -> bool:
        """Looks once more, some time later."""
        self.now += later_s
        await rows(url, "UPDATE usage_summary_refreshed SET refreshed_at = refreshed_at - interval '1 hour'")
        return await refresh.once()


async def sums(url: str) -> dict[date, int]:
    return dict(await rows(url, "SELECT day, calls::int FROM usage_by_dimension WHERE dimension = 'all'"))


async def broken(url: str, what: str) -> None:
    await rows(url, BREAK.format(what=what))
    await rows(url, TRIGGER)


async def test_a_day_that_fails_keeps_its_sums_and_all_others_continue(url: str) -> None:
    result = RefreshMetrics()
    async with Writer(url) as writer:
        with Database(url, size=1) as database:
            refresh = result.refresher(database)
            await writer.put(TOPICS.enriched, call(1, at(20)), call(2, at(21)))
            assert await refresh.once() and (result.failed, result.days) == ([], [0, 0])
            await broken(url, "RAISE EXCEPTION 'no' USING ERRCODE = '54000'")
            await writer.put(TOPICS.enriched, call(3, at(20)), call(4, at(21)))
            assert await result.again(url, refresh)
            assert await sums(url) == {BAD: 1, GOOD: 2}
            assert (result.failed, result.days[-1]) == (["postgres_error"], 1)
            await writer.put(TOPICS.enriched, call(5, at(20)), call(6, at(21)))
            assert await result.again(url, refresh), "it waits, though its calls change"
            assert await sums(url) == {BAD: 1, GOOD: 3} and result.failed == ["postgres_error"]
            await rows(url, "DROP FUNCTION break_it CASCADE")
            await rows(url, "UPDATE usage_days_failed SET retry_at = now()")
            assert await result.again(url, refresh)
    assert await sums(url) == {BAD: 3, GOOD: 3} and result.days[-1] == 0
    assert await rows(url, "SELECT * FROM usage_days_failed") == []


async def test_each_failure_of_a_day_doubles_the_wait_up_to_six_hours(url: str) -> None:
    await broken(url, "RAISE EXCEPTION 'no'")
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, call(1, at(20)))
    waits = []
    for _ in range(12):
        await rows(url, "SELECT refresh_usage_summary()")
        found = await rows(
            url, "SELECT extract(epoch FROM retry_at - failed_at)::int / 60, problem FROM usage_days_failed"
        )
        assert found[0][1] == "P0001"
        waits.append(found[0][0])
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]


async def test_a_day_that_takes_too_long_is_skipped(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_summary, "LIMIT_S", 1.0)
    await broken(url, "PERFORM pg_sleep(60)")
    result = RefreshMetrics()
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, call(1, at(20)), call(2, at(21)), call(3, at(19)))
    with Database(url, size=1) as database:
        assert await result.refresher(database).once()
    assert await sums(url) == {date(2026, 11, 19): 1, GOOD: 1}
    assert await rows(url, "SELECT day, problem FROM usage_days_failed") == [(BAD, "postgres_slow")]
    assert result.failed == ["postgres_slow"]


async def test_a_failed_refresh_is_counted_and_waits_longer_and_longer(postgres_url: str) -> None:
    """In an earlier version it was repeated every minute, and never counted."""
    async with owned_database(postgres_url) as owned:
        await rows(owned, f"REVOKE ALL ON usage_days_failed FROM {PROJECTOR}")
        result = RefreshMetrics()
        with Database(as_role(owned, PROJECTOR), size=1) as database:
            refresh = result.refresher(database)
            waits: list[float] = []
            for _ in range(9):
                with pytest.raises(Unavailable, match="postgres_denied"):
                    await refresh.once()
                assert await refresh.once() is False, "it waits"
                waits.append(refresh._not_before - result.now)
                result.now = refresh._not_before
            assert waits == [120, 240, 480, 960, 1920, *[MOST_REST_S] * 4]
            assert result.failed == ["postgres_denied"] * 9


async def test_the_projectors_role_refreshes_and_its_metrics_show_it(postgres_url: str) -> None:
    metrics = Metrics(CollectorRegistry(), "1")
    sensors = WorkerSensors(metrics, lambda: 0.0)
    value: Callable[..., float | None] = metrics.registry.get_sample_value
    async with owned_database(postgres_url) as owned:
        async with Writer(as_role(owned, PROJECTOR)) as writer:
            await writer.put(TOPICS.enriched, call(1, at(20)), call(2, at(21)))
        with Database(as_role(owned, PROJECTOR), size=1) as database:
            refresh = SummaryRefresh(database, sensors.projection_failed, sensors.usage_days_failed)
            await broken(owned, "RAISE EXCEPTION 'no'")
            assert await refresh.once()
        assert await sums(owned) == {GOOD: 1}
    assert value("meterbridge_usage_days_failed") == 1
    assert value("meterbridge_postgres_failures_total", {"reason": "postgres_error"}) == 1
