"""Computes the invoice of a change of plan, without the change.

Source: `app/services/invoices/preview_service.rb`, `preview_context_service.rb` and `preview/` below it of lago-api.

Only a change of one running subscription that pays in arrears is computed. Lago makes other previews too; the sandbox
refuses them.
"""

from dataclasses import dataclass, replace
from typing import Any

from connectors.lago_sandbox.coercion import text
from connectors.lago_sandbox.instants import day
from connectors.lago_sandbox.invoices import SandboxInvoice, fees_of
from connectors.lago_sandbox.invoicing import DueInvoice, bills
from connectors.lago_sandbox.plans import SandboxPlan
from connectors.lago_sandbox.refusals import forbidden, invalid_field, not_found
from connectors.lago_sandbox.state import Sandbox
from connectors.lago_sandbox.subscription import SandboxSubscription


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """A running subscription and the plan to which it would be changed."""

    subscription: SandboxSubscription
    plan: SandboxPlan


def preview_request_of(sandbox: Sandbox, sent: dict[str, Any]) -> PreviewRequest:
    """Return the change that a request names; checks run in Lago's order.

    Raises:
        SandboxRefusal: 404; 422 for the current plan itself; 403 for a preview that the sandbox does not make.
    """
    customer = sandbox.customers.all.get(text(_object(sent, "customer").get("external_id")) or "")
    if customer is None:
        raise not_found("customer")
    subscriptions_part = _object(sent, "subscriptions")
    external_ids = subscriptions_part.get("external_ids")
    if not isinstance(external_ids, list) or len(external_ids) != 1 or subscriptions_part.get("terminated_at"):
        raise forbidden()
    subscription = sandbox.current_subscriptions(sandbox.now_us()).find(text(external_ids[0]) or "")
    if subscription is None or subscription.customer is not customer:
        raise not_found("subscription")
    plan = sandbox.plans.all.get(text(subscriptions_part.get("plan_code")) or "")
    if plan is None:
        raise not_found("plan")
    if plan is subscription.plan:
        raise invalid_field("base", "new_plan_should_be_different_from_existing_plan")
    return PreviewRequest(subscription, plan)


def previewed(sandbox: Sandbox, preview: PreviewRequest, url: str) -> dict[str, Any]:
    """Lago's JSON of the invoice, without id and number. Raises: SandboxRefusal: 403 where a credit would be due."""
    running, now_us = preview.subscription, sandbox.now_us()
    if running.plan.pay_in_advance:
        raise forbidden()
    upgrade = preview.plan.yearly_cents >= running.plan.yearly_cents
    at_us = now_us if upgrade else running.period_end(now_us)
    ended = replace(running, status="terminated", terminated_us=at_us)
    following = replace(running, plan=preview.plan, previous=ended, started_us=at_us, created_us=now_us)
    *_, closing = _begun_now(ended, at_us), *bills(ended, following, now_us - 1, at_us)
    fees = fees_of(closing, sandbox.events, "")
    if preview.plan.pay_in_advance:
        opening = next(bills(following, None, at_us - 1, at_us))
        fees += fees_of(opening, sandbox.events, "")
    invoice_body = SandboxInvoice("", running.customer, 0, closing, fees).shown(url)
    unsaved: dict[str, Any] = {"lago_id": None, "number": "", "sequential_id": None, "status": "draft"}
    return invoice_body | unsaved | {"issuing_date": day(at_us).isoformat(), "fees": fees, "credits": []}


def _begun_now(subscription: SandboxSubscription, at_us: int) -> DueInvoice:
    """Return the bill of a subscription that ends at its own start."""
    return DueInvoice(subscription, at_us, at_us, at_us, 0, at_us, at_us)


def _object(sent: dict[str, Any], name: str) -> dict[str, Any]:
    member = sent.get(name)
    return member if isinstance(member, dict) else {}
