"""The plan of docs/credits.md for prepaid orgs: Lago accepts their usage and bills nothing for it."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.core.mapping.billing_periods import charges
from tests.support.org_api import OrgApi, org_api
from tests.support.sandbox import event

PAGE = Path(__file__).parents[2] / "docs" / "credits.md"


@pytest.fixture
async def api() -> AsyncIterator[OrgApi]:
    async with org_api() as running:
        yield running


@pytest.mark.parametrize(("plan", "cents"), [("prepaid", 0), ("ai_basic", 123)])
async def test_usage_of_a_prepaid_plan_is_accepted_and_costs_nothing(api: OrgApi, plan: str, cents: int) -> None:
    [written] = re.findall(r"/api/billing/plans\".*?-d '(.*?)'", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    await api.ask("POST", "/api/billing/plans", 201, json=json.loads(written))
    subscription = (await api.set_up(plan))["subscription"]["external_id"]
    record = await api.records.get("org_1")
    assert record is not None
    assert [charges(period, "ai_usage") for period in record.periods] == [True], "it is not held as no_charge"
    usage = event(
        code="ai_usage",
        external_subscription_id=subscription,
        precise_total_amount_cents="123",
        timestamp=f"{api.clock.now:.3f}",
    )
    await api.lago.post(usage)
    assert (await api.lago.usage(external_id=subscription))["amount_cents"] == cents
