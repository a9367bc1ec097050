"""The cache of Lago's answers: bounded in time and number, and an answer never hides a later write."""

from typing import Any

from connectors.billing.answer_cache import Cache
from connectors.billing.lago_directory import LagoDirectory


class CountingFetch:
    """Counts how often it is asked."""

    def __init__(self, answer: str | None = "a") -> None:
        self.answer = answer
        self.times = 0

    async def __call__(self) -> str | None:
        self.times += 1
        return self.answer


def cache(clock: list[float], most: int = 10) -> Cache[str, str]:
    return Cache(lambda: clock[0], kept_s=15.0, most=most)


async def test_an_answer_is_fetched_again_when_it_has_expired() -> None:
    clock, asked = [0.0], CountingFetch()
    kept = cache(clock)
    for moment, times in ((0.0, 1), (14.9, 1), (15.0, 2)):
        clock[0] = moment
        assert await kept.get("k", asked) == "a"
        assert asked.times == times


async def test_a_not_found_answer_is_not_cached() -> None:
    """A customer that has just subscribed must be found."""
    kept, asked = cache([0.0]), CountingFetch(None)
    assert [await kept.get("k", asked) for _ in range(2)] == [None, None]
    assert asked.times == 2


async def test_a_changed_value_is_fetched_again() -> None:
    kept, asked = cache([0.0]), CountingFetch()
    await kept.get("k", asked)
    kept.forget("k")
    await kept.get("k", asked)
    assert asked.times == 2


async def test_an_answer_from_before_a_change_is_not_cached() -> None:
    """
    get   ask ......... "old" arrives
    write      forget
    """
    kept = cache([0.0])

    async def overtaken() -> str:
        kept.forget("k")
        return "old"

    assert await kept.get("k", overtaken) == "old"
    assert await kept.get("k", CountingFetch("new")) == "new"


async def test_the_oldest_entry_is_evicted() -> None:
    kept, asked = cache([0.0], most=2), CountingFetch()
    for key in ("a", "b", "c"):
        await kept.get(key, asked)
    await kept.get("c", asked)
    await kept.get("b", asked)
    assert asked.times == 3
    await kept.get("a", asked)
    assert asked.times == 4


async def test_an_answer_that_was_fetched_again_counts_as_new() -> None:
    clock, asked = [0.0], CountingFetch()
    kept = cache(clock, most=2)
    await kept.get("a", asked)
    clock[0] = 10.0
    await kept.get("b", asked)
    clock[0] = 20.0
    for key in ("a", "c", "a"):
        await kept.get(key, asked)
    assert asked.times == 4


async def test_plans_and_metrics_are_fetched_once_in_five_minutes() -> None:
    """Every setup and every preview looks up its plan; a plan that does not exist is asked for every time."""
    asked: list[str] = []
    now = [0.0]

    class Books:
        async def plan(self, code: str) -> Any:
            asked.append(f"plan {code}")
            return None if code == "none" else code

        async def metric(self, code: str) -> Any:
            asked.append(f"metric {code}")
            return code

        async def subscriptions(self, external_customer_id: str) -> list[Any]:
            raise AssertionError(external_customer_id)

    directory = LagoDirectory(Books(), lambda: now[0])
    for moment in (0.0, 299.0, 301.0):
        now[0] = moment
        for _ in range(2):
            await directory.plan("p")
            await directory.metric("m")
    assert asked == ["plan p", "metric m"] * 2
    await directory.plan("none")
    await directory.plan("none")
    assert asked[4:] == ["plan none"] * 2
    directory.changed_catalogue("p")
    await directory.plan("p")
    assert asked[-1] == "plan p"
