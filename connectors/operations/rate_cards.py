"""Reads the versions of the rate card from `billing.rates`, and writes one; the audit log keeps who did it."""

from dataclasses import dataclass

import msgspec

from connectors.config.deployment import Deployment
from connectors.kafka.topic_scan import offset_range_of, scan
from connectors.operations.audit_record import audited
from connectors.operations.sender import CommandProducer, Outgoing
from schemas.decoding import Unreadable, decoder
from schemas.errors import Rejected
from schemas.moments import to_iso
from schemas.rates import RateCard
from streams.core.pricing.cards import in_order
from streams.runtime import clock

ACTION = "rates.put"
_decode = decoder(RateCard)


@dataclass(frozen=True, slots=True)
class StoredCards:
    """The versions in the topic, in the order in which they come into force, and the ids of those that cannot be read."""

    cards: tuple[RateCard, ...]
    unreadable: tuple[str, ...] = ()

    def with_id(self, name: str) -> RateCard | None:
        """The version with this id."""
        return next((card for card in self.cards if card.id == name), None)

    def at(self, at_us: int) -> RateCard | None:
        """The version in force at that moment, microseconds since 1970 UTC."""
        return next((card for card in reversed(self.cards) if card.effective_from <= at_us), None)

    def until_us(self, card: RateCard) -> int | None:
        """When the next version takes over from this one; None = no later one is known."""
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
    """Whether there is something to write; False = the same version is there already.

    Args:
        now_us: microseconds since 1970 UTC.
        lead_us: how long a change takes until every meter knows it.

    Raises:
        Rejected: `rate_in_force`: a version in force never changes. `rate_taken`: another version begins at that moment.
            `rate_in_the_past`: calls since then may be counted already, and keep their price.
    """
    before = known.with_id(card.id)
    if before is not None:
        if same(before, card):
            return False
        if before.effective_from <= now_us + lead_us:
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
    """Whether two versions are equal but for when they were written."""
    return msgspec.structs.replace(one, put_at=0) == msgspec.structs.replace(other, put_at=0)


def put_card(deployment: Deployment, sender: CommandProducer, card: RateCard, before: RateCard | None, why: str) -> str:
    """Write a version; the id of its audit line. Meters know it within the time of `MAPPING_DELAY_SECONDS`.

    Raises:
        Unavailable: Kafka did not take the line, or the version.
    """
    card = msgspec.structs.replace(card, put_at=clock.now_us())
    value = msgspec.json.encode(card)
    target = {"rate": card.id, "effective_from": to_iso(card.effective_from)}
    shown = "" if before is None else msgspec.json.encode(before).decode()
    audit_id = audited(deployment, sender, ACTION, target, reason=why, before=shown, after=value.decode())
    sender.send([Outgoing(deployment.topics.rates, card.id.encode(), value)])
    return audit_id
