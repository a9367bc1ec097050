"""Several processes, one limit that Lago reports in headers, half a minute of virtual time: the real delivery, no 429.

A batch is one request, so with BATCH_SIZE=1 it is the requests that are scarce: 300 sealed windows a second are 300.
"""

from collections.abc import Callable
from math import floor
from random import Random

import pytest

from connectors.lago_sandbox.limits import SandboxLimit
from tests.support.limited_lago import Fleet, LimitedLago
from tests.support.virtual_time import run_virtually, virtual_now

LIMIT, OFFERED = 500, 300

Dialect = Callable[[dict[str, str], float], dict[str, str]]


def rounded_up(headers: dict[str, str], _now: float) -> dict[str, str]:
    """Whole seconds, rounded up: always 1."""
    return headers


def rounded_down(headers: dict[str, str], _now: float) -> dict[str, str]:
    """Whole seconds, rounded down: always 0."""
    return headers | {"X-RateLimit-Reset": "0"}


def exact(headers: dict[str, str], now: float) -> dict[str, str]:
    """With decimals."""
    return headers | {"X-RateLimit-Reset": f"{floor(now) + 1 - now:.3f}"}


def without_reset(headers: dict[str, str], _now: float) -> dict[str, str]:
    """Only limit and remaining requests."""
    return {name: value for name, value in headers.items() if not name.endswith("Reset")}


def latencies(low_s: float, high_s: float) -> Callable[[], float]:
    random = Random(7)
    return lambda: random.uniform(low_s, high_s)


def lago_with(dialect: Dialect, high_s: float = 0.012, **options: object) -> LimitedLago:
    """Fast enough for one process with four concurrent requests: 7 ms each are 570 requests a second."""
    return LimitedLago(SandboxLimit(LIMIT), dialect, latencies(0.002, high_s), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 3])
def test_three_hundred_a_second_for_half_a_minute_get_no_429(processes: int) -> None:
    lago = lago_with(rounded_up)

    async def main() -> None:
        fleet = Fleet(lago, processes)
        await fleet.offer_steadily(OFFERED, 30)
        await fleet.drained(lago)
        fleet.stop()
        assert virtual_now() < 35

    run_virtually(main())
    assert lago.refused == []
    assert len(lago.posts) == len(lago.stored) == OFFERED * 30


def drain_rate(moments: list[float]) -> float:
    """Requests a second over the middle 80 %."""
    tenth = len(moments) // 10
    middle = moments[tenth : len(moments) - tenth]
    return (len(middle) - 1) / (middle[-1] - middle[0])


@pytest.mark.parametrize("dialect", [rounded_up, rounded_down, exact, without_reset], ids=lambda one: one.__name__)
@pytest.mark.parametrize("processes", [1, 4])
def test_a_backlog_after_an_outage_drains_at_half_the_limit_or_more_without_a_429(
    dialect: Dialect, processes: int
) -> None:
    """Lago is unavailable from 5 s to 15 s while 300/s go on arriving: 3 000 wait, and more come until the backlog is
    gone.
    """
    lago = lago_with(dialect, away=(5.0, 15.0))

    async def main() -> None:
        fleet = Fleet(lago, processes)
        await fleet.offer_steadily(OFFERED, 18)
        await fleet.drained(lago)
        fleet.stop()

    run_virtually(main())
    drained = [moment for moment in lago.posts if moment >= 15.0]
    assert lago.refused == []
    assert drain_rate(drained) >= LIMIT / 2
    assert set(lago.stored.values()) == {1}


@pytest.mark.parametrize("away_s", [2.0, 20.0, 300.0])
def test_every_process_notices_within_seconds_that_lago_answers_again(away_s: float) -> None:
    """After an outage of any length: a process that notices late leaves its share of the limit unused, and its
    customers waiting.
    """
    lago = lago_with(rounded_up, away=(5.0, 5.0 + away_s))

    async def main() -> None:
        fleet = Fleet(lago, processes=8)
        await fleet.offer_steadily(16, 10 + away_s)
        await fleet.drained(lago)
        fleet.stop()
        assert [breaker for breaker in fleet.breakers if not 5 + away_s <= breaker.since < 8 + away_s] == []

    run_virtually(main())


def test_processes_that_all_start_on_a_backlog_share_the_limit() -> None:
    lago = lago_with(rounded_up, high_s=0.1)

    async def main() -> None:
        fleet = Fleet(lago, processes=6)
        fleet.offer(4000)
        await fleet.drained(lago)
        fleet.stop()

    run_virtually(main())
    assert lago.refused == []
    assert drain_rate(lago.posts) >= LIMIT / 4  # 24 requests in flight, 50 ms each: Lago's latency is the bound here


def test_a_limit_without_headers_is_found_and_exceeded_less_and_less_often() -> None:
    """After a 429 without headers: half the speed, then a little more each second until the next one."""
    lago = lago_with(lambda _headers, _now: {})

    async def main() -> None:
        fleet = Fleet(lago, processes=1)
        fleet.offer(8_000)
        await fleet.drained(lago)
        fleet.stop()

    run_virtually(main())
    assert len(lago.refused) < 24
    assert drain_rate(lago.posts) >= LIMIT / 2
    assert set(lago.stored.values()) == {1}


def test_full_batches_count_as_one_request_each_and_are_not_delayed() -> None:
    lago = lago_with(rounded_up)

    async def main() -> None:
        fleet = Fleet(lago, processes=2, batch_size=100)
        fleet.offer(40_000)
        await fleet.drained(lago)
        fleet.stop()
        assert virtual_now() < 8

    run_virtually(main())
    assert lago.refused == []
    assert len(lago.posts) == 400
