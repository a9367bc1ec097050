"""Who pays for a call: the mapping version of its end time, then the org's subscription.

`[effective_from, next effective_from)`. The first version also covers everything before it, and a
stretch in which the mapping was inactive is covered by the next active version: held usage waits
for a mapping, so the one that comes takes it (streams/core/versions.py). Usage recorded for an org needs no mapping, and asks for none.
"""

from collections.abc import Mapping
from typing import NamedTuple

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.policy import LatePolicy
from schemas.wire import ORG
from streams.core.versions import INACTIVE, NO_MAPPING, WRONG_KIND, covering, payers, uncovered

__all__ = [
    "CURRENCY",
    "INACTIVE",
    "NO_MAPPING",
    "NO_SUBSCRIPTION",
    "OUTSIDE_PERIOD",
    "WRONG_CURRENCY",
    "WRONG_KIND",
    "Resolver",
    "Target",
    "billing_moment",
    "period_at",
    "resolve",
    "resolve_org",
    "version_at",
]

NO_SUBSCRIPTION = "no_subscription"
WRONG_CURRENCY = "currency"
OUTSIDE_PERIOD = "outside_period"

#: What LiteLLM's costs are in; an org billed in another currency is held.
CURRENCY = "USD"


class Target(NamedTuple):
    """Where a call goes: an org's subscription, or, with `held`, nowhere yet."""

    org_id: str
    subscription: str
    held: str = ""


def resolve(customer: CustomerRecord | None, at_us: int, id_kind: str, orgs: Mapping[str, OrgRecord]) -> Target:
    """The target of a call that ended at `at_us`; `held` is the reason when there is none."""
    if customer is None:
        return Target("", "", NO_MAPPING)
    held: Target | None = None
    for version in payers(customer.versions, at_us, id_kind, orgs):
        target = _billed_by(version, at_us, orgs)
        if not target.held:
            return target
        held = held or target
    return held or Target("", "", uncovered(customer, at_us))


def _billed_by(version: MappingVersion, at_us: int, orgs: Mapping[str, OrgRecord]) -> Target:
    """The target of a call that the version pays for."""
    org = orgs.get(version.lago_customer_id)
    if org is not None and org.currency and org.currency != CURRENCY:
        return Target(version.lago_customer_id, "", WRONG_CURRENCY)
    if version.external_subscription_id:
        return Target(version.lago_customer_id, version.external_subscription_id)
    period = period_at(org.periods, at_us) if org is not None else None
    if period is None:
        return Target(version.lago_customer_id, "", NO_SUBSCRIPTION)
    return Target(version.lago_customer_id, period.external_id)


def resolve_org(org_id: str, at_us: int, orgs: Mapping[str, OrgRecord], late: LatePolicy) -> Target:
    """The target of usage recorded for an org: its subscription, whatever its currency, for no money is known of it.

    What no period bills is held here already, and not at the seal: the fold counts what is held of it.
    """
    org = orgs.get(org_id)
    period = period_at(org.periods, at_us) if org is not None else None
    if org is None or period is None:
        return Target(org_id, "", NO_SUBSCRIPTION)
    billed_us = billing_moment(org.periods, period.external_id, at_us)
    if billed_us is None or (billed_us != at_us and late is LatePolicy.HOLD):
        return Target(org_id, "", OUTSIDE_PERIOD)
    return Target(org_id, period.external_id)


class Resolver:
    """`resolve` over whole tables; remembers targets that do not depend on time, while the tables stay as they are."""

    def __init__(
        self,
        customers: Mapping[str, CustomerRecord],
        orgs: Mapping[str, OrgRecord],
        late: LatePolicy = LatePolicy.SHIFT,
    ) -> None:
        self._customers = customers
        self._orgs = orgs
        self._late = late
        self._known: dict[tuple[str, str], Target] = {}

    def forget(self) -> None:
        """A table has changed."""
        self._known.clear()

    def __call__(self, customer_id: str, at_us: int, id_kind: str) -> Target:
        """The target of a customer's call that ended at `at_us`, or of an org's usage where `id_kind` says so."""
        target = self._known.get((customer_id, id_kind))
        if target is None:
            if id_kind == ORG:
                return resolve_org(customer_id, at_us, self._orgs, self._late)
            customer = self._customers.get(customer_id)
            target = resolve(customer, at_us, id_kind, self._orgs)
            if customer is not None and len(customer.versions) == 1:
                org = self._orgs.get(target.org_id)
                if org is None or len(org.periods) <= 1:
                    self._known[customer_id, id_kind] = target
        return target


def version_at(versions: tuple[MappingVersion, ...], at_us: int) -> MappingVersion | None:
    """The active version that covers `at_us`, whatever the kind of id, or None where no active one does or follows."""
    for version in versions[covering(versions, at_us) :]:
        if version.is_active:
            return version
    return None


def period_at(periods: tuple[Period, ...], at_us: int) -> Period | None:
    """The period that bills `at_us`; outside all of them the next one, then the last."""
    following = None
    for period in periods:
        if period.started_at <= at_us and (period.terminated_at is None or at_us < period.terminated_at):
            return period
        if period.started_at > at_us and (following is None or period.started_at < following.started_at):
            following = period
    return following or (periods[-1] if periods else None)


def billing_moment(periods: tuple[Period, ...], subscription: str, at_us: int) -> int | None:
    """When Lago bills usage of `at_us` on `subscription`: `at_us` itself where a period covers it,
    else the start of the period that follows; None when none follows (docs/lago-behaviour.md:
    an event outside `[started_at, terminated_at)` is accepted and never billed).

    A subscription without a known period is taken at its word.
    """
    own = [period for period in periods if period.external_id == subscription]
    if not own:
        return at_us
    following: int | None = None
    for period in own:
        if period.started_at <= at_us and (period.terminated_at is None or at_us < period.terminated_at):
            return at_us
        if period.started_at > at_us and (following is None or period.started_at < following):
            following = period.started_at
    return following
