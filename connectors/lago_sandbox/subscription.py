"""One subscription: its states, its billing periods and its JSON in Lago.

Source: `app/models/subscription.rb`, `app/serializers/v1/subscription_serializer.rb` of lago-api.
"""

from dataclasses import dataclass
from typing import Any

from connectors.lago_sandbox.customers import SandboxCustomer
from connectors.lago_sandbox.instants import day, iso, iso_ms, midnight
from connectors.lago_sandbox.plans import SandboxPlan
from streams.core.mapping.plan_intervals import period

STATUSES = ("pending", "active", "terminated", "canceled", "incomplete")
BILLING_TIMES = ("calendar", "anniversary")


@dataclass(slots=True, eq=False, kw_only=True)
class SandboxSubscription:
    """One subscription; moments in microseconds since 1970 UTC. Several can have one external id, one of them active.

    Fields:
        previous: the subscription that this one replaces or will replace.
        due_us: when a pending one starts: its own day, or the next period after a downgrade.
        ends_without_invoice: it was ended with `on_termination_invoice` `skip`.
    """

    lago_id: str
    external_id: str
    customer: SandboxCustomer
    plan: SandboxPlan
    name: str
    billing_time: str
    subscription_us: int
    created_us: int
    ending_us: int | None = None
    previous: "SandboxSubscription | None" = None
    due_us: int = 0
    status: str = "pending"
    started_us: int | None = None
    terminated_us: int | None = None
    canceled_us: int | None = None
    ends_without_invoice: bool = False

    def activate(self, at_us: int) -> None:
        """Start it at this moment."""
        self.status, self.started_us = "active", at_us

    def terminate(self, at_us: int) -> None:
        """End it; this moment still belongs to it."""
        self.status, self.terminated_us = "terminated", at_us

    def cancel(self, at_us: int) -> None:
        """Cancel it before its start."""
        self.status, self.canceled_us = "canceled", at_us

    def charge_period(self, on_us: int) -> tuple[int, int]:
        """Return the billing period of charges `[start, end)` that contains the moment; never before the subscription's
        start.
        """
        start, end = self._period(self.plan.charge_interval, on_us)
        return max(start, self.started_us or 0), end

    def plan_period(self, on_us: int) -> tuple[int, int]:
        """Return the plan's whole period `[start, end)` that contains the moment, also where the subscription started
        later.
        """
        return self._period(self.plan.interval, on_us)

    def period_end(self, on_us: int) -> int:
        """Return the end of the plan's period that contains the moment: a downgrade waits for it."""
        return self.plan_period(on_us)[1]

    def shown(self, following: "SandboxSubscription | None", now_us: int) -> dict[str, Any]:
        """Return the subscription in the JSON of `GET /subscriptions/{external_id}`; only `started_at` has
        milliseconds.
        """
        running = self.started_us is not None
        start, end = self.charge_period(max(now_us, self.started_us or 0))
        return {
            "lago_id": self.lago_id,
            "external_id": self.external_id,
            "lago_customer_id": self.customer.lago_id,
            "external_customer_id": self.customer.external_id,
            "name": self.name,
            "plan_code": self.plan.code,
            "plan_amount_cents": self.plan.amount_cents,
            "plan_amount_currency": self.plan.currency,
            "status": self.status,
            "billing_time": self.billing_time,
            "subscription_at": iso(self.subscription_us),
            "started_at": iso_ms(self.started_us),
            "trial_ended_at": None,
            "ending_at": iso(self.ending_us),
            "terminated_at": iso(self.terminated_us),
            "canceled_at": iso(self.canceled_us),
            "created_at": iso(self.created_us),
            "previous_plan_code": self.previous.plan.code if self.previous else None,
            "next_plan_code": following.plan.code if following else None,
            "downgrade_plan_date": day(following.due_us).isoformat() if following and following.due_us else None,
            "current_billing_period_started_at": iso(start) if running else None,
            "current_billing_period_ending_at": iso(end - 1) if running else None,
            "on_termination_credit_note": None,
            "on_termination_invoice": "skip" if self.ends_without_invoice else "generate",
            "activated_at": iso(self.started_us),
            "activation_rules": [],
        }

    def _period(self, interval: str, on_us: int) -> tuple[int, int]:
        anchor = day(self.subscription_us) if self.billing_time == "anniversary" else None
        first, following = period(interval, anchor, day(on_us))
        return midnight(first), midnight(following)
