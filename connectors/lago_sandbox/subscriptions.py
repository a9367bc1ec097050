"""Subscriptions: idempotent by external id and plan; an upgrade applies at once, a downgrade at the period's end.

Source: `app/services/subscriptions/create_service.rb`, `plan_upgrade_service.rb`, `plan_downgrade_service.rb`,
`activate_service.rb`, `update_service.rb`, `terminate_service.rb` of lago-api. Lago's clock jobs activate, end and
change plans later. The sandbox does this when the state is next read, as of the moment at which it was due.
"""

from typing import Any

from connectors.lago_sandbox.coercion import text
from connectors.lago_sandbox.customers import SandboxCustomer, SandboxCustomers
from connectors.lago_sandbox.identifiers import Identifiers
from connectors.lago_sandbox.instants import day, midnight, parse_iso
from connectors.lago_sandbox.plans import SandboxPlans
from connectors.lago_sandbox.refusals import forbidden, invalid_field, not_found
from connectors.lago_sandbox.subscription import BILLING_TIMES, SandboxSubscription
from connectors.lago_sandbox.totals import Windows
from schemas.moments import MAX_US

_MS = 1000


class SandboxSubscriptions:
    """Every subscription of the organization, by external id, oldest first.

    Fields:
        invoice_delay_us: how long after a subscription's end its last invoice is counted, microseconds.
    """

    def __init__(
        self, identifiers: Identifiers, customers: SandboxCustomers, plans: SandboxPlans, invoice_delay_us: int = 0
    ) -> None:
        self.invoice_delay_us = invoice_delay_us
        self._identifiers = identifiers
        self._customers = customers
        self._plans = plans
        self._all: dict[str, list[SandboxSubscription]] = {}
        self._windows: dict[str, Windows] = {}
        self._scheduled: list[SandboxSubscription] = []
        self._period: dict[str, tuple[int, int]] = {}

    def create(self, sent: dict[str, Any], now_us: int) -> SandboxSubscription:
        """Create a subscription, or change the plan of the one with this external id.

        Raises:
            SandboxRefusal: 404 `plan_not_found`, 403 for plan overrides, 422; then nothing is changed.
        """
        created = self._from_request(sent, now_us)
        current = self._editable(created.external_id, created.customer.external_id)
        if current is None:
            return self._start(self._added(created), now_us)
        if current.plan is created.plan:
            return current
        if current.status == "pending":
            current.plan, current.name = created.plan, created.name or current.name
            return current
        created.subscription_us, created.billing_time = current.subscription_us, current.billing_time
        created.ending_us = created.ending_us if "ending_at" in sent else current.ending_us
        return self._change_plan(current, created, now_us)

    def terminate(
        self, external_id: str, status: str | None, now_us: int, invoice: str | None = None
    ) -> SandboxSubscription:
        """End the active one, or cancel the pending one with `status` `pending`; with `invoice` `skip` without an
        invoice.

        Raises:
            SandboxRefusal: 404 `subscription_not_found`, also the second time.
        """
        expected_status = "pending" if status == "pending" else "active"
        subscription = self.find(external_id, expected_status)
        if subscription is None:
            raise not_found("subscription")
        if expected_status == "pending":
            subscription.cancel(now_us)
        else:
            subscription.ends_without_invoice = invoice == "skip"
            self._end(subscription, now_us)
        return subscription

    def update(self, external_id: str, status: str | None, sent: dict[str, Any], now_us: int) -> SandboxSubscription:
        """Change a subscription's name or end. Of several with this id the active one is changed, or with `status`
        `pending` the pending one.

        Raises:
            SandboxRefusal: 404; 403 for plan overrides; 422 for an end that is not in the future.
        """
        same_id = self._all.get(external_id, [])
        expected_status = "pending" if status == "pending" else "active"
        subscription = same_id[0] if len(same_id) == 1 else self.find(external_id, expected_status)
        if subscription is None:
            raise not_found("subscription")
        if "plan_overrides" in sent:
            raise forbidden()
        _, ending_us = _moments({"ending_at": sent.get("ending_at")}, max(now_us, subscription.subscription_us))
        if "name" in sent:
            subscription.name = text(sent["name"]) or ""
        if "ending_at" in sent:
            subscription.ending_us = ending_us
            if subscription not in self._scheduled:
                self._scheduled.append(subscription)
        return subscription

    def of_customer(self, customer: SandboxCustomer) -> list[SandboxSubscription]:
        """Return all current and past subscriptions of the customer."""
        return [s for same_id in self._all.values() for s in same_id if s.customer is customer]

    def end_all(self, customer: SandboxCustomer, now_us: int) -> None:
        """End a deleted customer's subscriptions: active ones end, pending ones are cancelled."""
        for s in self.of_customer(customer):
            if s.status == "active":
                self._end(s, now_us)
            elif s.status == "pending":
                s.cancel(now_us)

    def find(self, external_id: str, status: str = "active") -> SandboxSubscription | None:
        """Return the newest one with this external id and status."""
        matching = [s for s in self._all.get(external_id, ()) if s.status == status]
        return max(matching, key=lambda s: s.started_us or 0, default=None)

    def everyone(self) -> list[SandboxSubscription]:
        """Return all, latest `subscription_at` first: Lago's order in lists."""
        everyone = [s for same_id in self._all.values() for s in same_id]
        return sorted(everyone, key=lambda s: (s.subscription_us, s.created_us), reverse=True)

    def following(self, subscription: SandboxSubscription) -> SandboxSubscription | None:
        """Return the subscription that replaced it, or will replace it."""
        later = [s for s in self._all[subscription.external_id] if s.previous is subscription]
        return next((s for s in reversed(later) if s.status != "canceled"), None)

    def windows(self, external_id: str) -> Windows:
        """Return the periods to which billing assigns events, to the millisecond; the same object until they change.

        A running one ends with the year 9999: later events (milliseconds sent as seconds) wait for an invoice that is
        never made.
        """
        known = self._windows.get(external_id)
        if known is None:
            known = self._windows[external_id] = tuple(
                (s.started_us // _MS * _MS, MAX_US if s.terminated_us is None else s.terminated_us // _MS * _MS)
                for s in self._all.get(external_id, ())
                if s.started_us is not None
            )
        return known

    def in_time(self, external_id: str | None, ts_us: int, received_us: int) -> bool:
        """Return whether an event that arrived at `received_us` is on the invoice of its time: the invoice was not made
        yet, and will be made.
        """
        for s in self._all.get(external_id or "", ()):
            if s.started_us is None or ts_us < s.started_us // _MS * _MS:
                continue
            ended, delay = MAX_US if s.terminated_us is None else s.terminated_us, self.invoice_delay_us
            if ts_us > ended or received_us > ended + delay:
                continue
            if s.ends_without_invoice and ended <= self._period_end(s, ts_us):
                continue
            if ts_us >= received_us or self._open(s, ts_us, received_us, ended):
                return True
        return False

    def _open(self, s: SandboxSubscription, ts_us: int, received_us: int, ended: int) -> bool:
        end = self._period_end(s, ts_us)
        counted_us = ended + self.invoice_delay_us if ended <= end else end
        return received_us <= counted_us and end > s.created_us

    def _period_end(self, s: SandboxSubscription, ts_us: int) -> int:
        start, end = self._period.get(s.lago_id, (0, 0))
        if not start <= ts_us < end:
            start, end = self._period[s.lago_id] = s.charge_period(ts_us)
        return end

    def advance(self, now_us: int) -> None:
        """Do everything that is due: start pending subscriptions, and end subscriptions whose end has come."""
        for s in self._scheduled:
            if s.status == "pending" and s.due_us <= now_us:
                if s.previous is not None:
                    s.previous.terminate(s.due_us)
                s.activate(s.due_us)
                self._windows.pop(s.external_id, None)
            if s.status == "active" and s.ending_us is not None and midnight(day(s.ending_us)) <= now_us:
                self._end(s, midnight(day(s.ending_us)))
        self._scheduled = [
            s for s in self._scheduled if s.status == "pending" or (s.status == "active" and s.ending_us)
        ]

    def _from_request(self, sent: dict[str, Any], now_us: int) -> SandboxSubscription:
        """Return the request as a pending subscription that is not added yet; checks run in Lago's order."""
        plan = self._plans.all.get(text(sent.get("plan_code")) or "")
        if plan is None:
            raise not_found("plan")
        subscription_us, ending_us = _moments(sent, now_us)
        if "plan_overrides" in sent:
            raise forbidden()
        customer_id, external_id, name = (
            (text(sent.get(field)) or "").strip() for field in ("external_customer_id", "external_id", "name")
        )
        if not customer_id:
            raise invalid_field("external_customer_id", "value_is_mandatory")
        if self._editable(external_id, customer_id) is None and self.find(external_id):
            raise invalid_field("external_id", "value_already_exist")
        if not external_id:
            raise invalid_field("external_id", "value_is_mandatory")
        billing_time = sent.get("billing_time") or "calendar"
        if billing_time not in BILLING_TIMES:
            raise invalid_field("billing_time", "value_is_invalid")
        return SandboxSubscription(
            lago_id="",
            external_id=external_id,
            customer=self._customers.ensure(customer_id, plan.currency, now_us),
            plan=plan,
            name=name,
            billing_time=billing_time,
            subscription_us=subscription_us,
            created_us=now_us,
            ending_us=ending_us,
        )

    def _editable(self, external_id: str, customer_id: str) -> SandboxSubscription | None:
        for s in reversed(self._all.get(external_id, [])):
            starts_later = s.status == "pending" and s.previous is None
            if s.customer.external_id == customer_id and (s.status == "active" or starts_later):
                return s
        return None

    def _added(self, created: SandboxSubscription) -> SandboxSubscription:
        created.lago_id = self._identifiers.new("subscription")
        self._all.setdefault(created.external_id, []).append(created)
        self._scheduled.append(created)
        self._windows.pop(created.external_id, None)
        return created

    def _start(self, created: SandboxSubscription, now_us: int) -> SandboxSubscription:
        """Start a subscription. If `subscription_at` is today, it starts then; if it is earlier, not before the last
        termination; if it is later, the subscription is pending.
        """
        first, today = day(created.subscription_us), day(now_us)
        if first > today:
            created.due_us = midnight(first)
        elif first == today:
            created.activate(created.subscription_us)
        else:
            same_id = self._all[created.external_id]
            ended = [s.terminated_us or 0 for s in same_id if s.customer is created.customer]
            created.activate(max([created.subscription_us, *ended]))
        return created

    def _change_plan(
        self, current: SandboxSubscription, created: SandboxSubscription, now_us: int
    ) -> SandboxSubscription:
        """Change the plan: at once if the new plan costs the same or more per year, otherwise at the end of the period."""
        self._cancel_next(current, now_us)
        created.previous = current
        successor = self._added(created)
        if successor.plan.yearly_cents < current.plan.yearly_cents:
            successor.due_us = current.period_end(now_us)
            return current
        current.terminate(now_us)
        successor.activate(now_us)
        return successor

    def _end(self, subscription: SandboxSubscription, at_us: int) -> None:
        self._cancel_next(subscription, at_us)
        subscription.terminate(at_us)
        self._windows.pop(subscription.external_id, None)

    def _cancel_next(self, subscription: SandboxSubscription, now_us: int) -> None:
        following = self.following(subscription)
        if following is not None and following.status == "pending":
            following.cancel(now_us)


def _moments(sent: dict[str, Any], now_us: int) -> tuple[int, int | None]:
    """Return `subscription_at` (now when absent) and `ending_at`, which must lie after both days."""
    given, ending = sent.get("subscription_at"), sent.get("ending_at")
    subscription_us = now_us if given is None else parse_iso(given)
    ending_us = parse_iso(ending)
    if subscription_us is None:
        raise invalid_field("subscription_at", "invalid_date")
    if ending and (ending_us is None or day(ending_us) <= max(day(now_us), day(subscription_us))):
        raise invalid_field("ending_at", "invalid_date")
    return subscription_us, ending_us
