"""A version of the rate card: the prices of calls from a moment on. It is a value of `billing.rates`, by its id.

The rules are in streams/core/pricing; files of operators are read by connectors/billing/rate_files.py.
"""

from decimal import Decimal
from re import compile as re_compile
from typing import Any, Final

import msgspec

from schemas.moments import MAX_US, SECOND_US

#: The version of the format. It is increased if an older release would compute wrong prices; the meter of that release
#: stops at such a card.
CARD_VERSION = 1
#: The most decimals of a price. The price of a call is rounded to `COST_DECIMALS` of them.
PRICE_PLACES = 12
#: The most decimals of a factor. A price with 12 decimals of a dollar times a factor with 4 has 14 decimals of a cent,
#: and Lago keeps 15.
FACTOR_PLACES = 4
MOST_DOLLARS, MOST_FACTOR, MOST_PERCENT = Decimal(1_000_000), Decimal(1000), Decimal(100_000)
MOST_ENTRIES = 2_000
#: An id is a property of events, and a key in Kafka.
_ID = re_compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: Prices of an entry: per million tokens by kind, and per thing.
TOKEN_PRICES: Final = ("input", "cached", "cache_write", "output", "reasoning")
UNIT_PRICES: Final = (*TOKEN_PRICES, "per_second", "per_image", "per_request")


class Entry(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """The price of the calls whose model and provider match.

    Fields:
        model, provider: patterns with `*`, `?` and `[ab]`, upper and lower case differ (`fnmatch.fnmatchcase`).
        markup_percent: markup on LiteLLM's cost, percent; below 0 it is a discount. None = no markup.
        input, cached, cache_write, output, reasoning: dollars per million tokens of this kind. None: cached and written
            tokens cost as input, reasoning as output, and input or output nothing.
        per_second, per_image, per_request: dollars per unit.
        minimum: the lowest price of one call, dollars.
    """

    model: str = "*"
    provider: str = "*"
    markup_percent: Decimal | None = None
    input: Decimal | None = None
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    output: Decimal | None = None
    reasoning: Decimal | None = None
    per_second: Decimal | None = None
    per_image: Decimal | None = None
    per_request: Decimal | None = None
    minimum: Decimal | None = None

    @property
    def has_units(self) -> bool:
        """Whether the entry prices units of usage, instead of changing LiteLLM's cost."""
        return any(getattr(self, name) is not None for name in UNIT_PRICES)


class Factors(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """The factors of a price.

    Fields:
        power_level, team: factors by the call's power level, and by the id of its team; both apply.
        plan, org: factors by the payer's plan code, and by the id of the org. The factor of an org replaces that of its
            plan.
    """

    power_level: dict[str, Decimal] = {}
    team: dict[str, Decimal] = {}
    plan: dict[str, Decimal] = {}
    org: dict[str, Decimal] = {}


class RateCard(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """One version of the rate card. It never changes after its beginning.

    Fields:
        id: chosen by the operator.
        effective_from: a call that ends at or after this moment is priced by it, until the next version; microseconds
            since 1970 UTC, whole seconds.
        put_at: when it was written, microseconds since 1970 UTC. If two versions begin at the same moment, the one that
            was written later applies.
        entries: the first one that matches a call prices it.
        default: prices calls that match no entry; None = LiteLLM's unchanged cost.
        factors: None = no factors.
        v: version of the format.
    """

    id: str
    effective_from: int
    put_at: int = 0
    currency: str = "USD"
    entries: tuple[Entry, ...] = ()
    default: Entry | None = None
    factors: Factors | None = None
    v: int = CARD_VERSION


#: Why a price has too many decimals.
_ROUNDED: Final = ", to which COST_DECIMALS rounds the price of a call"


def check_card(card: RateCard) -> None:
    """Check that a reader can price by the card. Raises: ValueError: a sentence about the first mistake.

    A card of a later format is not checked: its readers examine `v` first.
    """
    if card.v > CARD_VERSION:
        return
    if _ID.fullmatch(card.id) is None:
        raise ValueError("id: use up to 64 letters, digits, dots, hyphens and underscores")
    if not 0 <= card.effective_from < MAX_US or card.effective_from % SECOND_US or not 0 <= card.put_at < MAX_US:
        raise ValueError("effective_from: must be a whole second between the years 1970 and 9999")
    if card.currency != "USD":
        raise ValueError("currency: must be USD, because LiteLLM's costs are in USD")
    if len(card.entries) > MOST_ENTRIES:
        raise ValueError(f"price: there are {len(card.entries)} entries; at most {MOST_ENTRIES} are allowed")
    for number, entry in enumerate(card.entries, 1):
        _check_entry(f"price {number}", entry)
    if card.default is not None:
        _check_entry("default", card.default)
    for kind, factors in msgspec.structs.asdict(card.factors or Factors()).items():
        for name, factor in factors.items():
            if not name:
                raise ValueError(f"factors.{kind}: a name is empty; write the name before the factor")
            _check_number(f"factors.{kind}.{name}", factor, Decimal(0), MOST_FACTOR, FACTOR_PLACES)


def check_places(card: RateCard, places: int) -> None:
    """Refuse prices of a call that rounding to `places` decimals of a dollar would lower or remove.

    Prices of tokens and seconds may be smaller: a call has many of them.

    Raises: ValueError: a sentence about the first such price.
    """
    entries = [(f"price {number}", entry) for number, entry in enumerate(card.entries, 1)]
    for where, entry in (*entries, ("default", card.default or Entry())):
        if entry.minimum is not None:
            _check_number(f"{where}.minimum", entry.minimum, Decimal(0), MOST_DOLLARS, places, _ROUNDED)
        for name in ("per_image", "per_request"):
            price = getattr(entry, name)
            if price and price < Decimal(1).scaleb(-places):
                raise ValueError(f"{where}.{name}: more than {places} decimals{_ROUNDED}")


def _check_entry(where: str, entry: Entry) -> None:
    if not entry.model or not entry.provider:
        raise ValueError(f'{where}: model or provider is empty; write "*" to match all')
    if entry.markup_percent is not None:
        if entry.has_units:
            raise ValueError(f"{where}: markup_percent changes LiteLLM's cost; use either it or prices per unit")
        _check_number(f"{where}.markup_percent", entry.markup_percent, Decimal(-100), MOST_PERCENT, PRICE_PLACES)
    for name in (*UNIT_PRICES, "minimum"):
        if (price := getattr(entry, name)) is not None:
            _check_number(f"{where}.{name}", price, Decimal(0), MOST_DOLLARS, PRICE_PLACES)


def _check_number(where: str, number: Decimal, least: Decimal, most: Decimal, places: int, why: str = "") -> None:
    if not number.is_finite() or not least <= number <= most:
        raise ValueError(f"{where}: must be from {least} to {most}")
    if -int(number.normalize().as_tuple().exponent) > places:
        raise ValueError(f"{where}: more than {places} decimals{why}")


#: The check that every reader of the topic makes in addition to the types.
CHECKS: Final[dict[type[Any], Any]] = {RateCard: check_card}
