"""Changes an org's account: its customer and subscription in Lago, together with its record in Kafka.

Lago is changed first, then the record. If a request is interrupted in between, a repeat finds the finished steps
(docs/orgs.md).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from connectors.billing.org_billing import OTHER_PLAN, RUNNING, OrgBilling
from connectors.billing.org_records import ROUNDS, OrgRecords, changed_from
from connectors.billing.org_sync import BEGUN, as_lago_says
from connectors.billing.plan_terms import PlanTermsCache
from connectors.billing.usage_limits import is_plan
from connectors.config.misspelt_names import meant_by
from connectors.lago.customers import check_new_id
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import Customer, CustomerUsage, Plan, Subscription
from schemas.customers import OrgRecord, Period
from schemas.errors import Unavailable
from streams.core.mapping.billing_periods import charged_codes

UNKNOWN_ORG, NO_SUBSCRIPTION = "unknown_org", "no_subscription"

#: Called with the state before and after a change, before the change is made. Raises: Unavailable: change nothing.
Changing = Callable[[Any, Any], Awaitable[None]]
copy = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class OrgRequest:
    """The requested account of an org. Texts may be `""`.

    Fields:
        plan_code: `""` = no subscription is requested.
        subscription_at: ISO 8601; None = now.
        overwrite: also change an existing customer's name, email and metadata.
    """

    org_id: str
    name: str = ""
    email: str = ""
    user_id: str = ""
    plan_code: str = ""
    metadata: dict[str, str] | None = None
    billing_time: str = "anniversary"
    subscription_at: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """Lago's data of an org; `subscription` is active or pending; `created`: whether a part of the account is new."""

    customer: Customer
    subscription: Subscription | None = None
    created: bool = False


class OrgAccounts:
    """Reads and changes the accounts in one Lago.

    Args:
        now_us: microseconds since 1970 UTC.
    """

    def __init__(self, billing: OrgBilling, records: OrgRecords, now_us: Callable[[], int]) -> None:
        self.billing = billing
        self.records = records
        self.now_us = now_us
        self._terms = PlanTermsCache(billing.lago)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def account(self, org_id: str) -> Account:
        """Return the account as Lago has it now. Raises: LagoRejected `unknown_org`."""
        existing = await self._existing(org_id)
        if existing is None:
            raise unknown_org()
        return existing

    async def is_known(self, org_id: str) -> bool:
        """Return whether the org's record says that Lago has or had the org. If it does not, only Lago knows."""
        record = await self.records.get(org_id)
        return record is not None and bool(record.periods or record.subscription_id)

    def uncharged(self, org_id: str, code: str) -> str:
        """Return a sentence if no subscription of the org charges the metric, by the org's record; `""` = one does, or
        it is not known. Neither Lago nor Kafka is asked.
        """
        record = self.records.seen(org_id)
        known = charged_codes(record.periods, self.now_us()) if record is not None else None
        if known is None or code in known:
            return ""
        near = meant_by(code, known)
        sentence = f"no plan of the org charges the metric {code!r}, so Lago bills nothing for this event"
        return f"{sentence}: did you mean {near!r}?" if near else sentence

    async def set_up(self, request: OrgRequest, changing: Changing) -> Account:
        """Make the customer and the subscription if they are missing. Repeated or simultaneous requests make them once.

        Raises:
            LagoRejected: `other_plan`: the org is on another plan, see `change_plan`; code `plan_not_found`.
            LagoIntegrationError, Unavailable
        """
        org_id = request.org_id
        async with self._locks.setdefault(org_id, asyncio.Lock()):
            _check(org_id)
            known = await self._existing(org_id)
            running = known.subscription if known is not None else None
            if running is not None and request.plan_code not in ("", running.plan_code):
                raise LagoRejected(
                    OTHER_PLAN, f"the org is on the plan {running.plan_code}: `PUT .../subscription` changes it"
                )
            if known is None:
                check_new_id(org_id)
            if request.plan_code:
                await self.plan(request.plan_code)
            await changing(_as_object(known), _request_as_object(request, known))
            account = await self._made(request, known)
            await self._note(org_id, account)
            return account

    async def change_plan(self, org_id: str, plan_code: str, changing: Changing) -> Account:
        """Change the plan under the same subscription id. The code of the running plan cancels a pending change.

        Raises:
            LagoRejected: `unknown_org`, `no_subscription`; code `plan_not_found`.
            LagoIntegrationError, Unavailable
        """
        async with self._locks.setdefault(org_id, asyncio.Lock()):
            known = await self.account(org_id)
            running = _running(known)
            await self.plan(plan_code)
            before = {"plan_code": running.plan_code, "next_plan_code": running.next_plan_code}
            waiting = None if plan_code == running.plan_code else running.next_plan_code
            after = {"plan_code": plan_code, "next_plan_code": waiting}
            if plan_code != running.next_plan_code or plan_code == running.plan_code:
                await changing(before, after)
            if plan_code == running.plan_code and running.next_plan_code:
                await self.billing.lago.terminate_subscription(running.external_id, pending=True)
                self.billing.directory.changed(org_id)
            else:
                await self.billing.subscribe(org_id, plan_code, running.billing_time or "anniversary", None)
            changed = await self.account(org_id)
            await self._note(org_id, changed)
            return changed

    async def end(self, org_id: str, changing: Changing) -> Subscription:
        """End the org's active subscription now, or cancel a pending one.

        Raises:
            LagoRejected: `unknown_org`, `no_subscription`, also at a repeat.
            LagoIntegrationError, Unavailable
        """
        async with self._locks.setdefault(org_id, asyncio.Lock()):
            known = await self.account(org_id)
            if known.subscription is None:
                # An interrupted request may have ended it in Lago without a change of the record.
                await self._note(org_id, known)
            running = _running(known)
            await changing({"subscription": running.external_id, "plan_code": running.plan_code}, None)
            ended = await self.billing.terminate(org_id, running.external_id) or running
            await self._note(org_id, Account(known.customer))
            return ended

    async def usage(self, org_id: str) -> tuple[Subscription, CustomerUsage]:
        """Return the active subscription and its current usage. Raises: LagoRejected `unknown_org`, `no_subscription`."""
        running = await self.billing.subscription(org_id)
        usage = await self.billing.lago.usage(org_id, running.external_id) if running is not None else None
        if running is not None and usage is not None:
            return running, usage
        self.billing.directory.changed(org_id)
        await self.account(org_id)
        raise LagoRejected(NO_SUBSCRIPTION, "the org has no running subscription")

    async def plan(self, plan_code: str) -> Plan:
        """Return the plan, cached for minutes. Raises: LagoRejected: code `plan_not_found`."""
        return await self.billing.plan(plan_code)

    async def _existing(self, org_id: str) -> Account | None:
        _check(org_id)
        lago = self.billing.lago
        customer, listed, record = await asyncio.gather(
            lago.customer(org_id), lago.subscriptions(org_id, RUNNING), self.records.get(org_id)
        )
        own = record.subscription_id if record is not None else ""
        return None if customer is None else Account(customer, _chosen(listed, own))

    async def _made(self, request: OrgRequest, known: Account | None) -> Account:
        billing, org_id = self.billing, request.org_id
        if known is None:
            user_id = request.user_id or None
            customer = await billing.create_customer(org_id, request.name, request.email, user_id, request.metadata)
        elif _differs(request, known.customer):
            customer = await billing.update_customer(
                org_id, request.name or None, request.email or None, request.metadata
            )
        else:
            customer = known.customer
        account = Account(customer, known.subscription if known is not None else None, created=known is None)
        if not request.plan_code or account.subscription is not None:
            return account
        try:
            made = await billing.subscribe(
                org_id, request.plan_code, request.billing_time, request.subscription_at, only_new=True
            )
        except LagoRejected:
            if known is None:
                await billing.take_back(org_id)
            raise
        # Lago sets the currency of a customer at its first subscription.
        return Account(await billing.lago.customer(org_id) or customer, made, created=True)

    async def _note(self, org_id: str, account: Account) -> None:
        """Write the account to the org's record, so that usage held for the subscription is billed at once.

        Raises:
            Unavailable: `write_conflict`: other processes changed the record each time; repeating is safe.
        """
        for _ in range(ROUNDS):
            before = await self.records.get(org_id)
            listed = await self.billing.lago.subscriptions(org_id, BEGUN)
            periods = await self._terms.periods(listed, account.customer)
            make = partial(noted, account=account, listed=periods, now_us=self.now_us())
            if await changed_from(self.records, org_id, before, make):
                return
            account = await self._existing(org_id) or account
        raise Unavailable(
            "write_conflict", "other processes change the org's record all the time; repeat the request, it is safe"
        )


def noted(known: OrgRecord, account: Account, listed: Sequence[Period], now_us: int) -> OrgRecord:
    """Return the org's record, updated with Lago's present data; pure.

    Args:
        listed: all active and ended subscriptions of the org, with their terms.
        now_us: microseconds since 1970 UTC.
    """
    org = as_lago_says(known, account.customer, listed, now_us)
    return copy(org, plan=_plan_of(account, listed) or org.plan)


def _plan_of(account: Account, listed: Sequence[Period]) -> str | None:
    """Return the plan of the account's subscription. The list is newer than the account, so its plan is preferred."""
    own = account.subscription
    if own is None:
        return None
    running = (
        subscription
        for subscription in listed
        if subscription.terminated_at is None and subscription.external_id == own.external_id
    )
    return next((subscription.plan_code for subscription in running), own.plan_code)


def unknown_org() -> LagoRejected:
    """Return the error for an org that neither Lago nor Meterbridge knows."""
    return LagoRejected(UNKNOWN_ORG, "there is no such org: POST .../organizations/{org_id}/setup makes it")


def day_of(moment: str) -> date:
    """Return the UTC day of a timestamp in Lago's format."""
    return date.fromisoformat(moment[:10])


def _check(org_id: str) -> None:
    """Check the id. Raises: LagoRejected `unsafe_id`: the id would be the key of a plan's limits."""
    if is_plan(org_id):
        raise LagoRejected("unsafe_id", "no org's id begins with plan:")


def _running(account: Account) -> Subscription:
    if account.subscription is None:
        raise LagoRejected(NO_SUBSCRIPTION, "the org has no subscription")
    return account.subscription


def _chosen(listed: Sequence[Subscription], own: str) -> Subscription | None:
    """Choose the subscription with the org's stored id, otherwise any. An active one is preferred to a pending one."""
    ranked = sorted(listed, key=lambda one: (one.external_id != own, one.status != "active"))
    return ranked[0] if ranked else None


def _differs(request: OrgRequest, customer: Customer) -> bool:
    """Return whether the request changes the customer."""
    pairs = ((request.name, customer.name), (request.email, customer.email))
    noted = (request.metadata or {}).items()
    return request.overwrite and (
        any(expected and expected != actual for expected, actual in pairs)
        or any(customer.note(key) != value for key, value in noted)
    )


def _as_object(known: Account | None) -> dict[str, Any] | None:
    if known is None:
        return None
    plan = known.subscription.plan_code if known.subscription is not None else None
    metadata = {entry.key: entry.value for entry in known.customer.metadata}
    return {"name": known.customer.name, "email": known.customer.email, "plan_code": plan, "metadata": metadata}


def _request_as_object(request: OrgRequest, known: Account | None) -> dict[str, Any]:
    """Return the same object as `_as_object`, for the state after the request."""
    before = _as_object(known) or {"name": None, "email": None, "plan_code": None, "metadata": {}}
    overwrites = known is None or request.overwrite
    return {
        "name": (overwrites and request.name) or before["name"],
        "email": (overwrites and request.email) or before["email"],
        "plan_code": before["plan_code"] or request.plan_code or None,
        "metadata": {**before["metadata"], **(request.metadata or {})} if overwrites else before["metadata"],
    }
