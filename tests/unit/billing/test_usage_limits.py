"""Usage limits: an org's own limits override its plan's, and are compared with Lago's usage."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from connectors.billing.usage_limits import (
    LimitReached,
    RecordLimits,
    StaticLimits,
    UsageLimits,
    UsedLimit,
    checked,
    is_plan,
)
from connectors.lago.errors import LagoRejected, LagoUnavailable
from connectors.lago.responses import CustomerUsage, MetricCode, Subscription, UsageCharge
from schemas.customers import OrgRecord
from schemas.errors import Rejected, Unavailable

NAMES = st.dictionaries(st.sampled_from(["tokens", "requests", "amount_cents", "gpus"]), st.integers(0, 10**12))


def usage(cents: int = 0, **units: str) -> CustomerUsage:
    """Usage in units, by metric."""
    charges = [UsageCharge(0, MetricCode(code), units=count) for code, count in units.items()]
    return CustomerUsage("2025-03-01T00:00:00Z", "2025-03-31T23:59:59Z", charges, amount_cents=cents)


@dataclass
class Counted:
    """Lago's answers about an org on the plan `starter`; counts the requests."""

    said: CustomerUsage | None
    asked: int = 0

    async def subscription(self, org_id: str) -> Subscription | None:
        return None if self.said is None else Subscription("sub", plan_code="starter")

    async def usage(self, org_id: str) -> CustomerUsage | None:
        self.asked += 1
        await asyncio.sleep(0)
        return self.said


@dataclass
class Records:
    """The orgs' records, without Kafka."""

    all: dict[str, OrgRecord] = field(default_factory=dict)

    async def get(self, org_id: str) -> OrgRecord | None:
        return self.all.get(org_id)

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        self.all[org_id] = make(self.all.get(org_id, OrgRecord(org_id)))
        return self.all[org_id]


@given(NAMES, NAMES)
def test_an_orgs_own_limits_override_its_plans(plan: dict[str, int], own: dict[str, int]) -> None:
    async def run() -> dict[str, int]:
        return await UsageLimits(Counted(usage()), StaticLimits({"starter": plan}, {"org_1": own})).of("org_1")

    found = asyncio.run(run())
    assert found == {name: own.get(name, plan.get(name)) for name in plan.keys() | own.keys()}


@given(st.integers(0, 10), st.integers(0, 10))
def test_a_limit_is_reached_when_nothing_is_left_of_it(used: int, most: int) -> None:
    async def run() -> tuple[UsedLimit, ...]:
        limits = UsageLimits(Counted(usage(api_call=str(used))), StaticLimits(orgs={"org_1": {"requests": most}}))
        return await limits.check("org_1")

    if used < most:
        assert asyncio.run(run()) == (UsedLimit("requests", Decimal(used), most),)
        return
    with pytest.raises(LimitReached) as caught:
        asyncio.run(run())
    assert (caught.value.limit, caught.value.used, caught.value.most) == ("requests", used, most)
    assert caught.value.reason == "limit_reached"


async def test_each_limit_is_compared_with_the_usage_of_its_metric() -> None:
    said = usage(199, ai_usage="1500.0", api_call="7", gpu_hours="2.5")
    most = {"tokens": 2000, "requests": 10, "amount_cents": 200, "gpu_hours": 3}
    found = await UsageLimits(Counted(said), StaticLimits(orgs={"org_1": most})).check("org_1")
    assert {one.limit: one.used for one in found} == {
        "tokens": Decimal(1500),
        "requests": 7,
        "amount_cents": 199,
        "gpu_hours": Decimal("2.5"),
    }


async def test_several_charges_on_one_metric_are_added() -> None:
    said = usage()
    said.charges_usage.extend(UsageCharge(0, MetricCode("llm"), units=units) for units in ("1.5", "2"))
    limits = UsageLimits(Counted(said), StaticLimits(orgs={"org_1": {"tokens": 9}}), tokens_code="llm")
    assert (await limits.check("org_1"))[0].used == Decimal("3.5")


async def test_a_limit_on_a_metric_without_a_charge_is_answered_as_not_counted_and_logged_once() -> None:
    """A flat plan has no charge on usage: the answer 0 would mean that usage is counted."""
    limits = UsageLimits(Counted(usage()), StaticLimits(orgs={"org_1": {"tokens": 0}}))
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            assert await limits.check("org_1") == (UsedLimit("tokens", None, 0),)
    assert [(line["event"], line["limit"]) for line in lines] == [("limit_not_counted", "tokens")]


async def test_an_org_without_a_subscription_is_not_within_its_limits() -> None:
    limits = UsageLimits(Counted(None), StaticLimits(orgs={"org_1": {"tokens": 9}}))
    with pytest.raises(LagoRejected, match="no_active_subscription"):
        await limits.check("org_1")


async def test_concurrent_requests_ask_lago_once_for_an_org_and_later_requests_again() -> None:
    counted, ticks = Counted(usage(api_call="1")), [0.0]
    limits = UsageLimits(counted, StaticLimits(orgs={"org_1": {"requests": 9}}), clock=lambda: ticks[0])
    await asyncio.gather(*(limits.check("org_1") for _ in range(50)))
    assert counted.asked == 1
    await limits.check("org_2")
    assert counted.asked == 2
    ticks[0] = 10.0
    counted.said = usage(api_call="9")
    with pytest.raises(LimitReached):
        await limits.check("org_1")


async def test_limits_that_cannot_be_read_now_give_the_documented_error() -> None:
    class Away:
        async def of_org(self, org_id: str) -> dict[str, int]:
            raise Unavailable("view_incomplete", "not read yet")

        of_plan = of_org

    with pytest.raises(LagoUnavailable, match="view_incomplete"):
        await UsageLimits(Counted(usage()), Away()).check("org_1")


async def test_limits_of_plans_and_orgs_are_stored_in_the_orgs_records() -> None:
    records = Records({"org_1": OrgRecord("org_1", name="Acme", plan="starter")})
    limits = RecordLimits(records)
    assert await limits.set_plan("starter", {"tokens": 5}) == {"tokens": 5}
    assert await limits.set_org("org_1", {"requests": 7}) == {"requests": 7}
    assert (await limits.of_plan("starter"), await limits.of_org("org_1")) == ({"tokens": 5}, {"requests": 7})
    assert (await limits.of_plan("other"), await limits.of_org("starter")) == ({}, {})
    assert (records.all["org_1"].name, records.all["org_1"].plan) == ("Acme", "starter")
    assert [is_plan(key) for key in sorted(records.all)] == [False, True]
    assert await limits.set_org("org_1", {}) == {}


@pytest.mark.parametrize(
    "wrong",
    [{"": 1}, {"a\nb": 1}, {"a" * 256: 1}, {"a": -1}, {"a": 1 << 63}, {"a": True}, {f"n{n}": 1 for n in range(33)}],
)
async def test_impossible_limits_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(Rejected, match="bad_limit"):
        checked(wrong)
    with pytest.raises(Rejected, match="bad_limit"):
        await RecordLimits(Records()).set_org("org_1", wrong)
