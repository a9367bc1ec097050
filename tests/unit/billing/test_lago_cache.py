"""Answers are kept for a while, in a bounded number, and never hide what was written since."""

from typing import Any

from connectors.billing.answer_cache import Cache
from connectors.billing.lago_directory import LagoDirectory


class Asked:
    """Counts the questions."""

    def __init__(self, answer: str | None = "a") -> None:
        self.answer = answer
        self.times = 0

    async def __call__(self) -> str | None:
        self.times += 1
        return self.answer


def cache(clock: list[float], most: int = 10) -> Cache[str, str]:
    return Cache(lambda: clock[0], kept_s=15.0, most=most)


async def test_an_answer_is_asked_for_again_when_its_time_is_up() -> None:
    clock, asked = [0.0], Asked()
    kept = cache(clock)
    for moment, times in ((0.0, 1), (14.9, 1), (15.0, 2)):
        clock[0] = moment
        assert await kept.get("k", asked) == "a"
        assert asked.times == times


async def test_that_there_is_nothing_is_asked_every_time() -> None:
    """A customer that has just subscribed is not turned away."""
    kept, asked = cache([0.0]), Asked(None)
    assert [await kept.get("k", asked) for _ in range(2)] == [None, None]
    assert asked.times == 2


async def test_what_was_changed_is_asked_again() -> None:
    kept, asked = cache([0.0]), Asked()
    await kept.get("k", asked)
    kept.forget("k")
    await kept.get("k", asked)
    assert asked.times == 2


async def test_an_answer_from_before_a_change_is_not_kept() -> None:
    """
    get   ask ......... "old" arrives
    write      forget
    """
    kept = cache([0.0])

    async def overtaken() -> str:
        kept.forget("k")
        return "old"

    assert await kept.get("k", overtaken) == "old"
    assert await kept.get("k", Asked("new")) == "new"


async def test_the_oldest_makes_room() -> None:
    kept, asked = cache([0.0], most=2), Asked()
    for key in ("a", "b", "c"):
        await kept.get(key, asked)
    await kept.get("c", asked)
    await kept.get("b", asked)
    assert asked.times == 3
    await kept.get("a", asked)
    assert asked.times == 4


async def test_an_answer_asked_for_again_is_a_young_one() -> None:
    clock, asked = [0.0], Asked()
    kept = cache(clock, most=2)
    await kept.get("a", asked)
    clock[0] = 10.0
    await kept.get("b", asked)
    clock[0] = 20.0
    for key in ("a", "c", "a"):
        await kept.get(key, asked)
    assert asked.times == 4


async def test_plans_and_metrics_are_asked_for_once_in_five_minutes() -> None:
    """Every setup and every preview looks for its plan; that there is none is asked every time."""
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
