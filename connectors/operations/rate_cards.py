"""Reads the versions of the rate card from `billing.rates`, and writes new ones. The audit log records who did it."""

from dataclasses import dataclass

import msgspec

from connectors.billing.rate_files import POWER_LEVELS
from connectors.config.deployment import Deployment
from connectors.kafka.topic_scan import offset_range_of, scan
from connectors.operations.audit_record import audited
from connectors.operations.sender import CommandProducer, Outgoing
from schemas.decoding import Unreadable, decoder
from schemas.errors import Rejected
from schemas.moments import to_iso
from schemas.money import plain
from schemas.rates import Factors, RateCard
from streams.core.pricing.cards import in_order
from streams.runtime import clock

ACTION = "rates.put"
_decode = decoder(RateCard)


@dataclass(frozen=True, slots=True)
class StoredCards:
    """The versions in the topic, ordered by the moment from which they apply, and the ids of versions that cannot be
    read.
    """

    cards: tuple[RateCard, ...]
    unreadable: tuple[str, ...] = ()

    def with_id(self, name: str) -> RateCard | None:
        """Return the version with this id."""
        return next((card for card in self.cards if card.id == name), None)

    def at(self, at_us: int) -> RateCard | None:
        """Return the version that applies at that moment, microseconds since 1970 UTC."""
        return next((card for card in reversed(self.cards) if card.effective_from <= at_us), None)

    def until_us(self, card: RateCard) -> int | None:
        """Return when the next version replaces this one; None = there is no later version."""
        return next((one.effective_from for one in self.cards if in_order(one) > in_order(card)), None)


def known_cards(deployment: Deployment) -> StoredCards:
    """Read the topic. Raises: TopicProblem: it does not exist. Unavailable: Kafka does not answer."""
    latest: dict[str, bytes | None] = {}
    for message in scan(deployment.kafka, offset_range_of(deployment.kafka, deployment.topics.rates)):
        latest[(message.key() or b"").decode(errors="replace")] = message.value()
    cards, unreadable = [], []
    for name, value in latest.items():
        if value is None:
            continue
        try:
            cards.append(_decode(value))
        except Unreadable:
            unreadable.append(name)
    return StoredCards(tuple(sorted(cards, key=in_order)), tuple(sorted(unreadable)))


def check_put(card: RateCard, known: StoredCards, now_us: int, lead_us: int, *, back_date: bool) -> bool:
    """Check whether a version may be written; False = the same version is stored already, or it is in force as an
    earlier release read the same file (`has_added_factors`).

    Args:
        now_us: microseconds since 1970 UTC.
        lead_us: time until every meter knows a change, microseconds.

    Raises:
        Rejected: `rate_in_force`: a version in force never changes. `rate_taken`: another version begins at that moment.
            `rate_in_the_past`: calls since then may be counted already, and keep their price.
    """
    before = known.with_id(card.id)
    if before is not None:
        begins = before.effective_from > now_us + lead_us
        if same(before, card) or (not begins and same(before, _as_read_earlier(card))):
            return False
        if not begins:
            begun = to_iso(before.effective_from)
            raise Rejected("rate_in_force", f"{card.id} is in force since {begun} and never changes: choose another id")
    for one in known.cards:
        if one.id != card.id and one.effective_from == card.effective_from:
            raise Rejected("rate_taken", f"{one.id} begins at {to_iso(one.effective_from)} as well")
    if card.effective_from < now_us + lead_us and not back_date:
        raise Rejected(
            "rate_in_the_past",
            f"{to_iso(card.effective_from)} is not {lead_us // 1_000_000} seconds ahead: calls that are counted by now keep "
            "their price, and later reports of the same time would get another. If that is meant: --back-date",
        )
    return True


def same(one: RateCard, other: RateCard) -> bool:
    """Return whether two versions are equal, except for the time at which they were written."""
    return msgspec.structs.replace(one, put_at=0) == msgspec.structs.replace(other, put_at=0)


def has_added_factors(card: RateCard) -> bool:
    """Return whether a stored version has exactly the default factors of the power levels beside other factors.
    Earlier each table of factors brought them with it; the version does not show whether its file asked for them.
    """
    factors = card.factors
    return (
        factors is not None
        and factors.power_level == POWER_LEVELS
        and bool(factors.team or factors.plan or factors.org)
    )


def dropped_factors(before: RateCard | None, card: RateCard) -> list[str]:
    """Return the factors of `before`, other than 1, for which `card` has none: calls cost without them from then on."""
    old = msgspec.structs.asdict((before and before.factors) or Factors())
    new = msgspec.structs.asdict(card.factors or Factors())
    return [
        f"{kind} {name} x {plain(factor)}"
        for kind, factors in old.items()
        for name, factor in factors.items()
        if factor != 1 and name not in new[kind]
    ]


def _as_read_earlier(card: RateCard) -> RateCard:
    """Return the version as an earlier release read the same file."""
    if card.factors is None or card.factors.power_level:
        return card
    return msgspec.structs.replace(card, factors=msgspec.structs.replace(card.factors, power_level=POWER_LEVELS))


def put_card(deployment: Deployment, sender: CommandProducer, card: RateCard, before: RateCard | None, why: str) -> str:
    """Write a version; return the id of its audit line. All meters know it within `MAPPING_DELAY_SECONDS`.

    Raises:
        Unavailable: Kafka did not acknowledge the line or the version.
    """
    card = msgspec.structs.replace(card, put_at=clock.now_us())
    value = msgspec.json.encode(card)
    target = {"rate": card.id, "effective_from": to_iso(card.effective_from)}
    shown = "" if before is None else msgspec.json.encode(before).decode()
    audit_id = audited(deployment, sender, ACTION, target, reason=why, before=shown, after=value.decode())
    sender.send([Outgoing(deployment.topics.rates, card.id.encode(), value)])
    return audit_id
