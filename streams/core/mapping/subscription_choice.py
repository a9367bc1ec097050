"""Chooses the subscription of an org that pays: its plan charges the metric, and Lago will still invoice it.

If there are several, the org's own subscription is chosen, whose id is in the org's record. Otherwise a person has to
decide (docs/adr/0021).
"""

from collections.abc import Sequence
from typing import NamedTuple

from schemas.customers import OrgRecord, Period
from streams.core.mapping.billing_periods import charges, over, reads_dollars, runs_at
from streams.core.mapping.held_reasons import AMBIGUOUS, ENDED, NO_CHARGE, NO_SUBSCRIPTION, WRONG_CURRENCY


class Choice(NamedTuple):
    """A subscription's external id, or the reason why there is none."""

    subscription: str
    held: str = ""


def chosen(
    org: OrgRecord | None, at_us: int, code: str = "", now_us: int | None = None, *, owed: bool = True
) -> Choice:
    """Return the subscription that bills usage of `at_us` on the metric `code`.

    It is the subscription that is active at that moment, otherwise the next one, otherwise the last one.

    Args:
        code: `""` = any metric.
        now_us: subscriptions that have ended by then are left out; None = the seal decides about it.
        owed: see `billed`. Usage without an amount may go to a subscription that does not charge it.
    """
    if org is None or not org.periods:
        return Choice("", NO_SUBSCRIPTION)
    candidates = [period for period in org.periods if charges(period, code)]
    if not candidates:
        if owed:
            return Choice("", NO_CHARGE)
        candidates, code = list(org.periods), ""
    if owed and not (candidates := [period for period in candidates if reads_dollars(period)]):
        return Choice("", WRONG_CURRENCY)
    if now_us is not None:
        candidates = [period for period in candidates if not over(period, now_us)]
        if not candidates:
            return Choice("", ENDED)
    covering = [period for period in candidates if runs_at(period, at_us)]
    if not covering:
        first = min((period.started_at for period in candidates if period.started_at > at_us), default=None)
        if first is None:
            return Choice(candidates[-1].external_id)
        covering = [period for period in candidates if period.started_at == first]
    return _of_several(org, covering, code)


def named(org: OrgRecord | None, subscription: str, code: str = "", now_us: int | None = None) -> Choice:
    """Return the subscription that a mapping names, unless Lago's data contradict the mapping.

    `now_us`: as in `chosen`. A subscription that has ended pays for nothing, so a later mapping may take over.
    """
    if org is None:
        return Choice(subscription)
    own = [period for period in org.periods if period.external_id == subscription]
    if own and not any(charges(period, code) for period in own):
        return Choice("", NO_CHARGE)
    if own and not any(charges(period, code) and reads_dollars(period) for period in own):
        return Choice("", WRONG_CURRENCY)
    if not own and subscription in org.unusable:
        return Choice("", org.unusable[subscription])
    if own and now_us is not None and all(over(period, now_us) for period in own):
        return Choice("", ENDED)
    return Choice(subscription)


def _of_several(org: OrgRecord, covering: Sequence[Period], code: str) -> Choice:
    names = dict.fromkeys(period.external_id for period in covering)
    if len(names) == 1:
        return Choice(covering[0].external_id)
    if org.subscription_id in names:
        return Choice(org.subscription_id)
    # Lago's charges are discovered within minutes. Until then, and if any metric is accepted, the first subscription
    # pays.
    if not code or any(period.charged is None for period in covering):
        return Choice(covering[0].external_id)
    return Choice("", AMBIGUOUS)
