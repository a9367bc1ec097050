"""Prices calls by the version of the rate card that applies at their end. Pure except for its caches."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple, TypeVar

from schemas.customers import OrgRecord
from schemas.ledger import RateKey
from schemas.normalised_call import Usage
from schemas.rates import RateCard
from schemas.rounding import quantum
from streams.core.mapping.resolve import Target
from streams.core.pricing.payer import ONE, payer_factor, plan_at
from streams.core.pricing.price import Tariff, bills_without_cost, entry_of, priced_by, tariff_of

T = TypeVar("T")
#: The largest size of a cache. Names of models and orgs are external input, so the caches are bounded.
_MOST = 4096
#: The most characters of a cached key. Senders choose the names of models.
_LONGEST = 1024
_UNIT = quantum()


class Price(NamedTuple):
    """The price of a call, dollars, before the payer's factor."""

    card: RateCard
    usd: Decimal


class Rates:
    """The versions of the rate card. It is created again when a version is written.

    Args:
        cards: the versions, in any order.
        orgs: the table of orgs; its periods name the plans.
        unit: a price is rounded to a multiple of this amount, dollars.
    """

    def __init__(
        self, cards: Iterable[RateCard], orgs: Mapping[str, OrgRecord] | None = None, unit: Decimal = _UNIT
    ) -> None:
        self._orgs: Mapping[str, OrgRecord] = {} if orgs is None else orgs
        self._unit = unit
        self._cards = sorted(cards, key=in_order)
        self._begins = [card.effective_from for card in self._cards]
        self._by_id = {card.id: card for card in self._cards}
        self._tariffs: dict[tuple[str, str, str], Tariff] = {}
        self._factors: dict[tuple[str, str, str], Decimal] = {}

    def __bool__(self) -> bool:
        """Return whether there is any version."""
        return bool(self._cards)

    def at(self, end_us: int) -> RateCard | None:
        """Return the version that applies at that moment, microseconds since 1970 UTC; None = none applies yet."""
        number = bisect_right(self._begins, end_us)
        return self._cards[number - 1] if number else None

    def of(self, rate: str) -> RateCard | None:
        """Return the version with this id."""
        return self._by_id.get(rate)

    def price(self, usage: Usage) -> Price | None:
        """Return the price of a billed call by the version that applies at its end; None = none applies yet."""
        card = self.at(usage.end_us)
        if card is None:
            return None
        return Price(card, priced_by(self._tariff(card, usage), card.factors, usage, self._unit))

    def price_of_use(self, usage: Usage, *, read_again: bool = False) -> Price | None:
        """Return the price of a call without a cost; None = its entry prices none of the counted units.

        Args:
            read_again: whether the call may be a repeated read although it names no job; see `bills_without_cost`.
        """
        card = self.at(usage.end_us)
        if card is None:
            return None
        tariff = self._tariff(card, usage)
        if not bills_without_cost(tariff, usage, read_again=read_again or bool(usage.job)):
            return None
        return Price(card, priced_by(tariff, card.factors, usage, self._unit))

    def factor(self, card: RateCard, org_id: str, subscription: str, end_us: int) -> Decimal:
        """Return the payer's factor for a call that ended at `end_us`."""
        if card.factors is None or not (card.factors.org or card.factors.plan):
            return ONE
        key = (card.id, org_id, subscription)
        factor = self._factors.get(key)
        if factor is None:
            org = self._orgs.get(org_id)
            factor = payer_factor(card, org_id, plan_at(org, subscription, end_us))
            if org is None or len(org.periods) <= 1:
                _remember(self._factors, key, factor)
        return factor

    def key_of(self, card: RateCard, target: Target, end_us: int) -> RateKey:
        """Return the rate by which the window of a call is grouped. The factor of held usage is determined when it is
        released.
        """
        held = target.held
        return card.id, ONE if held else self.factor(card, target.org_id, target.subscription, end_us)

    def _tariff(self, card: RateCard, usage: Usage) -> Tariff:
        key = (card.id, usage.model, usage.provider)
        tariff = self._tariffs.get(key)
        if tariff is None:
            tariff = tariff_of(entry_of(card, usage.model, usage.provider))
            _remember(self._tariffs, key, tariff)
        return tariff


def in_order(card: RateCard) -> tuple[int, int, str]:
    """Return a key that sorts versions by their beginning. If two begin at the same moment, the one that was written
    later applies.
    """
    return card.effective_from, card.put_at, card.id


def _remember(cache: dict[tuple[str, str, str], T], key: tuple[str, str, str], value: T) -> None:
    if sum(map(len, key)) > _LONGEST:
        return
    if len(cache) >= _MOST:
        cache.clear()
    cache[key] = value
