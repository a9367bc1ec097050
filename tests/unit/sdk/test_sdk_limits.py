"""The SDK's limits: an org's own limits override its plan's, and each is compared with Lago's usage."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbridge_sdk import BillingRejected, BillingUnavailable, CurrentUsage, FixedLimits, LimitUse, OrgSubscription
from meterbridge_sdk.errors import UsageLimitReached
from meterbridge_sdk.limits import OrgLimits
from tests.support.sdk_logs import sdk_logs

NAMES = st.dictionaries(st.sampled_from(["tokens", "requests", "amount_cents", "gpus"]), st.integers(0, 10**12))


def usage(cents: int = 0, **units: str) -> CurrentUsage:
    counted = {code: Decimal(text) for code, text in units.items()}
    return CurrentUsage("sub", "2025-03-01T00:00:00Z", "2025-03-31T23:59:59Z", "USD", cents, counted)


@dataclass
class Meterbridge:
    """Answers like `MeterbridgeClient`; an answer that is an exception is raised."""

    usage: Any = None
    limits: Any = field(default_factory=dict)
    status: str = "active"
    asked: list[str] = field(default_factory=list)

    async def _answer(self, name: str, answer: Any) -> Any:
        self.asked.append(name)
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get_subscription(self, org_id: str) -> OrgSubscription | None:
        found = OrgSubscription("sub", "starter", self.status, None, None) if self.status else None
        return await self._answer("subscription", found)  # type: ignore[no-any-return]

    async def get_current_usage(self, org_id: str) -> CurrentUsage | None:
        return await self._answer("usage", self.usage)  # type: ignore[no-any-return]

    async def get_limits(self, org_id: str) -> dict[str, int]:
        return await self._answer("limits", self.limits)  # type: ignore[no-any-return]


def org_limits(
    there: Meterbridge, fixed: FixedLimits | None = None, clock: Callable[[], float] = lambda: 0.0, **options: str
) -> OrgLimits:
    return OrgLimits(there, fixed, clock=clock, **options)  # type: ignore[arg-type]


@given(NAMES, NAMES)
def test_an_orgs_own_limits_override_its_plans(plan: dict[str, int], own: dict[str, int]) -> None:
    fixed = FixedLimits({"starter": plan, "other": {"tokens": 1}}, {"org_1": own, "org_2": {"gpus": 1}})
    found = asyncio.run(org_limits(Meterbridge(), fixed).of("org_1"))
    assert found == {name: own.get(name, plan.get(name)) for name in plan.keys() | own.keys()}


@given(st.integers(0, 10), st.integers(0, 10))
def test_a_limit_is_reached_when_nothing_is_left_of_it(used: int, maximum: int) -> None:
    there = Meterbridge(usage(api_call=str(used)), {"requests": maximum})
    if used < maximum:
        assert asyncio.run(org_limits(there).check("org_1")) == (LimitUse("requests", Decimal(used), maximum),)
        return
    with pytest.raises(UsageLimitReached) as caught:
        asyncio.run(org_limits(there).check("org_1"))
    assert (caught.value.limit, caught.value.used, caught.value.maximum) == ("requests", used, maximum)
    assert (caught.value.reason, caught.value.retryable) == ("limit_reached", False)


async def test_each_limit_is_compared_with_the_usage_of_its_metric() -> None:
    counted = usage(199, ai_usage="1500.0", api_call="7", gpu_hours="2.5", tokens_2="3")
    limits = {"tokens": 2000, "requests": 10, "amount_cents": 200, "gpu_hours": 3}
    uses = {use.limit: use.used for use in await org_limits(Meterbridge(counted, limits)).check("org_1")}
    assert uses == {"tokens": 1500, "requests": 7, "amount_cents": 199, "gpu_hours": Decimal("2.5")}
    there = Meterbridge(counted, {"tokens": 9})
    assert (await org_limits(there, tokens_code="tokens_2").check("org_1"))[0].used == 3


async def test_a_limit_that_lago_does_not_count_blocks_nothing_and_is_logged_once() -> None:
    limits = org_limits(Meterbridge(usage(), {"tokens": 0}))
    with sdk_logs() as lines:
        for _ in range(3):
            assert await limits.check("org_1") == (LimitUse("tokens", None, 0),)
    assert [(line["event"], line["org_id"], line["limit"]) for line in lines] == [
        ("limit_not_counted", "org_1", "tokens")
    ]


async def test_without_a_subscription_a_limit_check_is_refused() -> None:
    with pytest.raises(BillingRejected, match="no_active_subscription"):
        await org_limits(Meterbridge(None, {"tokens": 5})).check("org_1")


async def test_if_usage_is_unknown_it_is_not_within_limits() -> None:
    away = BillingUnavailable("timeout")
    for there in (Meterbridge(away), Meterbridge(usage(), away)):
        with pytest.raises(BillingUnavailable):
            await org_limits(there).check("org_1")


async def test_a_busy_service_makes_one_request_in_ten_seconds() -> None:
    now = [0.0]
    there = Meterbridge(usage(), {"amount_cents": 5})
    limits = org_limits(there, clock=lambda: now[0])
    for now[0] in (0.0, 9.9):
        await asyncio.gather(*(limits.check("org_1") for _ in range(20)))
        await asyncio.gather(*(limits.is_active("org_1") for _ in range(20)))
    assert sorted(there.asked) == ["limits", "subscription", "usage"]
    now[0] = 10.0
    await limits.check("org_1")
    assert len(there.asked) == 5


@pytest.mark.parametrize("status", ["", "pending", "terminated"])
async def test_an_org_that_is_not_active_is_asked_about_again_at_once(status: str) -> None:
    """It may be subscribed at this moment."""
    there = Meterbridge(usage(), status=status)
    limits = org_limits(there)
    assert await limits.is_active("org_1") is False
    there.status = "active"
    assert await limits.is_active("org_1") is True


async def test_a_change_by_the_service_itself_is_known_at_once() -> None:
    """Also if an older answer arrives after the change."""
    there = Meterbridge(usage(), {"tokens": 1})
    limits = org_limits(there)
    asking = asyncio.ensure_future(limits.of("org_1"))
    await asyncio.sleep(0)
    limits.changed("org_1")
    assert await asking == {"tokens": 1}
    there.limits = {"tokens": 2}
    assert await limits.of("org_1") == {"tokens": 2}
    there.limits = {"tokens": 3}
    limits.changed("org_1")
    assert await limits.of("org_1") == {"tokens": 3}
