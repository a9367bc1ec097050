"""Request bodies for Lago in tests: a plan, a subscription."""

from typing import Any

from connectors.lago.requests import NewCharge, NewMetric, NewPlan, NewSubscription

METRIC = NewMetric(name="AI usage", code="ai_usage", aggregation_type="sum_agg", field_name="unit")


def plan(code: str, amount_cents: int = 0, *charges: NewCharge) -> NewPlan:
    money = {"amount_cents": amount_cents, "amount_currency": "USD", "pay_in_advance": False}
    return NewPlan(name=code, code=code, interval="monthly", charges=charges, **money)


def subscription(plan_code: str = "llm", **fields: Any) -> NewSubscription:
    ids = {"external_customer_id": "org_1", "external_id": "sub_1"} | fields
    return NewSubscription(plan_code=plan_code, **ids)
