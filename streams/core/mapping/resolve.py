"""Finds out who pays for a call: the mapping version at its end time names the org, and the org's subscription is
billed.

A version covers `[effective_from, next effective_from)`; the first version also covers all earlier time. Usage of a
time in which the mapping was inactive is held until the next active version takes it
(streams/core/mapping/versions.py). Usage recorded for an org needs no mapping.
"""

from collections.abc import Mapping
from typing import NamedTuple

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord
from schemas.policy import OutOfPeriodPolicy
from schemas.wire import ORG
from streams.core.mapping.billing_periods import Billed, billed
from streams.core.mapping.held_reasons import LATE_PERIOD, NO_MAPPING, NOT_KEPT, OUTSIDE_PERIOD, WRONG_CURRENCY
from streams.core.mapping.subscription_choice import chosen, named
from streams.core.mapping.versions import forgotten, payers, uncovered

#: The currency of LiteLLM's costs. Usage of an org with another currency is held.
CURRENCY = "USD"


class Target(NamedTuple):
    """The subscription of an org that pays for a call. If `held` is set, there is none yet, and `held` is the reason."""

    org_id: str
    subscription: str
    held: str = ""


def resolve(
    customer: CustomerRecord | None,
    at_us: int,
    id_kind: str,
    orgs: Mapping[str, OrgRecord],
    code: str = "",
    now_us: int | None = None,
) -> Target:
    """Return the target of a call that ended at `at_us`.

    Args:
        at_us: microseconds since 1970 UTC.
        code, now_us: see `streams.core.mapping.subscription_choice.chosen`.
    """
    if customer is None:
        return Target("", "", NO_MAPPING)
    if at_us < customer.known_from:
        return Target("", "", NOT_KEPT)
    return _by_versions(customer, at_us, id_kind, orgs, code, now_us)


def _by_versions(
    customer: CustomerRecord, at_us: int, id_kind: str, orgs: Mapping[str, OrgRecord], code: str, now_us: int | None
) -> Target:
    held: Target | None = None
    for version in payers(customer.versions, at_us, id_kind, orgs, now_us):
        target = _billed_by(version, at_us, orgs, code, now_us)
        if not target.held:
            return target
        held = held or target
    return held or Target("", "", uncovered(customer, at_us, now_us))


def resolve_held(
    customer: CustomerRecord,
    org_id: str,
    at_us: int,
    id_kind: str,
    orgs: Mapping[str, OrgRecord],
    code: str = "",
    now_us: int | None = None,
    held: str = "",
) -> Target:
    """Return the target of held usage, for the org that would have paid at the last look.

    If the version that named the org has been dropped, the org still pays. Usage that was held for no org was covered
    by no version, so it belongs to no dropped version either.

    Args:
        org_id: `""` = the usage was held for no org.
        held: the reason for which the usage was held.
    """
    if forgotten(customer, org_id, at_us, id_kind, orgs, now_us):
        return _billed_by(MappingVersion(at_us, org_id, ""), at_us, orgs, code, now_us)
    if held not in ("", NOT_KEPT):
        return _by_versions(customer, at_us, id_kind, orgs, code, now_us)
    return resolve(customer, at_us, id_kind, orgs, code, now_us)


def _billed_by(
    version: MappingVersion, at_us: int, orgs: Mapping[str, OrgRecord], code: str, now_us: int | None
) -> Target:
    """Return the target of a call for which the version pays."""
    org = orgs.get(version.lago_customer_id)
    if org is not None and org.currency and org.currency != CURRENCY:
        return Target(version.lago_customer_id, "", WRONG_CURRENCY)
    if version.external_subscription_id:
        return Target(version.lago_customer_id, *named(org, version.external_subscription_id, code, now_us))
    return Target(version.lago_customer_id, *chosen(org, at_us, code, now_us))


def resolve_org(
    org_id: str,
    at_us: int,
    orgs: Mapping[str, OrgRecord],
    late: OutOfPeriodPolicy,
    code: str = "",
    now_us: int | None = None,
) -> Target:
    """Return the target of usage recorded for an org: a subscription in any currency, because such usage has no amount.

    The subscription that charges the metric is preferred, otherwise any, because plans with a flat price do not charge
    usage. Usage that no period bills is held here and not when its window closes, because the fold limits held events.
    """
    org = orgs.get(org_id)
    choice = chosen(org, at_us, code, now_us, owed=False)
    if org is None or choice.held:
        return Target(org_id, *choice)
    period = billed(org.periods, choice.subscription, at_us, now_us or 0, code, owed=False)
    held = held_for(period, at_us, late)
    return Target(org_id, "" if held else choice.subscription, held)


class Resolver:
    """Applies `resolve` to whole tables. It caches targets that do not depend on time while the tables stay the same.

    Attributes:
        now_us: a subscription that has ended by then pays for nothing; None = the seal decides whether it has.
    """

    def __init__(
        self,
        customers: Mapping[str, CustomerRecord],
        orgs: Mapping[str, OrgRecord],
        late: OutOfPeriodPolicy = OutOfPeriodPolicy.SHIFT,
        code: str = "",
    ) -> None:
        self._customers = customers
        self._orgs = orgs
        self._late = late
        self._code = code
        self.now_us: int | None = None
        self._known: dict[tuple[str, str], Target] = {}

    def forget(self) -> None:
        """Clear the cache after a table has changed."""
        self._known.clear()

    def __call__(self, customer_id: str, at_us: int, id_kind: str, code: str = "") -> Target:
        """Return the target of a customer's call that ended at `at_us`, or of an org's usage if `id_kind` is `org`.

        `code`: the metric of an org's usage.
        """
        target = self._known.get((customer_id, id_kind))
        if target is None:
            if id_kind == ORG:
                return resolve_org(customer_id, at_us, self._orgs, self._late, code, self.now_us)
            customer = self._customers.get(customer_id)
            target = resolve(customer, at_us, id_kind, self._orgs, self._code, self.now_us)
            if customer is not None and len(customer.versions) == 1 and not customer.known_from:
                org = self._orgs.get(target.org_id)
                if org is None or len(org.periods) <= 1:
                    self._known[customer_id, id_kind] = target
        return target


def held_for(billed: Billed, at_us: int, late: OutOfPeriodPolicy) -> str:
    """Say why usage of `at_us` is held although its subscription is known; `""` = Lago bills it at `billed.at_us`."""
    if billed.held or billed.at_us == at_us or late is OutOfPeriodPolicy.SHIFT:
        return billed.held
    return LATE_PERIOD if billed.invoiced else OUTSIDE_PERIOD
