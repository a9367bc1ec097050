"""Which of an org's subscriptions pays: one whose plan charges the metric, and that Lago will still invoice.

Of several the org's own, whose id is stored in its record; else a person has to say which (docs/adr/0021).
"""

from collections.abc import Sequence
from typing import NamedTuple

from schemas.customers import OrgRecord, Period
from streams.core.mapping.billing_periods import ENDED, NO_CHARGE, charges, covers, over

NO_SUBSCRIPTION = "no_subscription"
#: Several subscriptions charge the metric, and none of them is the org's own.
AMBIGUOUS = "ambiguous"
#: Why a subscription that a mapping names bills nothing: Lago has none of this id, or another customer's.
UNKNOWN_SUBSCRIPTION, FOREIGN_SUBSCRIPTION = "unknown_subscription", "foreign_subscription"


class Choice(NamedTuple):
    """A subscription's external id, or why there is none."""

    subscription: str
    held: str = ""


def chosen(
    org: OrgRecord | None, at_us: int, code: str = "", now_us: int | None = None, *, owed: bool = True
) -> Choice:
    """The subscription that bills usage of `at_us` on the metric `code`.

    The one that runs then; outside all of them the next one, then the last.

    Args:
        code: `""` = whatever is charged.
        now_us: those that have ended by then are passed over; None = whether they have is asked at the seal.
        owed: see `billed`: what costs nothing by itself goes to a subscription that charges nothing for it, too.
    """
    if org is None or not org.periods:
        return Choice("", NO_SUBSCRIPTION)
    candidates = [one for one in org.periods if charges(one, code)]
    if not candidates:
        if owed:
            return Choice("", NO_CHARGE)
        candidates, code = list(org.periods), ""
    if now_us is not None:
        candidates = [one for one in candidates if not over(one, now_us)]
        if not candidates:
            return Choice("", ENDED)
    covering = [one for one in candidates if covers(one, at_us)]
    if not covering:
        first = min((one.started_at for one in candidates if one.started_at > at_us), default=None)
        if first is None:
            return Choice(candidates[-1].external_id)
        covering = [one for one in candidates if one.started_at == first]
    return _of_several(org, covering, code)


def named(org: OrgRecord | None, subscription: str, code: str = "", now_us: int | None = None) -> Choice:
    """The subscription that a mapping names: at its word, unless Lago says otherwise.

    `now_us`: as for `chosen`; what has ended for good pays for nothing, so that a later mapping may.
    """
    if org is None:
        return Choice(subscription)
    own = [one for one in org.periods if one.external_id == subscription]
    if own and not any(charges(one, code) for one in own):
        return Choice("", NO_CHARGE)
    if not own and subscription in org.unusable:
        return Choice("", org.unusable[subscription])
    if own and now_us is not None and all(over(one, now_us) for one in own):
        return Choice("", ENDED)
    return Choice(subscription)


def _of_several(org: OrgRecord, covering: Sequence[Period], code: str) -> Choice:
    names = dict.fromkeys(one.external_id for one in covering)
    if len(names) == 1:
        return Choice(covering[0].external_id)
    if org.subscription_id in names:
        return Choice(org.subscription_id)
    # What they charge is learnt within minutes; until then, and where it does not matter, the first of them pays.
    if not code or any(one.charged is None for one in covering):
        return Choice(covering[0].external_id)
    return Choice("", AMBIGUOUS)
