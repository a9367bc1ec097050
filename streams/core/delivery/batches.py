"""What is delivered and what became of it; which events travel together, by id, number and size."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from schemas.decoding import decoder

Kind = Literal["delivered", "retry", "dead"]

#: What a batch's body may weigh: proxies in front of Lago refuse bodies from 1 MiB on (nginx's default).
MAX_BODY_BYTES = 1_000_000
_HEAD, _TAIL = b'{"events":[', b"]}"


class _Whose(msgspec.Struct):
    external_subscription_id: str = ""


_whose = decoder(_Whose)


@dataclass(frozen=True, slots=True)
class Item:
    """One event to deliver.

    Fields:
        value: the event's JSON, posted byte for byte.
        resent: it may have been posted before, by us or by an earlier owner.
        compare: it was a dead letter: that Lago knows its id proves nothing, what Lago holds is looked at.
        suspect: it was given back: it travels apart from those that have not been tried.
        elsewhere: an earlier post may have been of another moment or subscription: it is looked up before it is posted.
    """

    transaction_id: str
    value: bytes
    resent: bool
    compare: bool = False
    suspect: bool = False
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """What became of one event.

    Fields:
        reason: stable code, also of a delivery: `accepted`, `already_exists`, `confirmed`.
        detail: for people, at most 500 characters, never a payload.
        attempts: posts that contained the event, in this delivery.
        maybe_sent: Lago may have stored it although that is not known: the `resent` of its next item.
        timestamp, subscription: what it was posted with instead of its own, see streams/core/delivery/restamp.py; `""` = its own.
    """

    kind: Kind
    reason: str
    detail: str
    attempts: int
    maybe_sent: bool = False
    timestamp: str = ""
    subscription: str = ""


@dataclass(slots=True, eq=False)
class EventBatch:
    """Events posted together, and how often they failed together; equal only to itself.

    Fields:
        members: positions in the delivered sequence.
        family: shared by all parts of one original batch: their failures are one finding.
        holds: holds in a row, of any cause; the backoff's exponent.
        fails: failures that the batch itself may have caused.
        passed: the breaker's count of successes when the batch first failed.
        doubted: the count of accepted answers when its refusal was first doubted; -1 = it never was.
    """

    members: list[int]
    family: object
    holds: int = 0
    fails: int = 0
    passed: int = 0
    doubted: int = -1

    def cut(self, size: int) -> "EventBatch":
        """Keep the first `size` members; the rest becomes a batch with the same history."""
        rest = replace(self, members=self.members[size:])
        self.members = self.members[:size]
        return rest


def body_of(values: Iterable[bytes]) -> bytes:
    """The body of `POST /api/v1/events/batch`; the values are joined, never encoded again."""
    return _HEAD + b",".join(values) + _TAIL


def subscription_of(value: bytes) -> str:
    """Whose usage an event is; `""` where it does not say."""
    try:
        return _whose(value).external_subscription_id
    except msgspec.DecodeError:
        return ""


def rounds(transaction_ids: Sequence[str]) -> list[list[int]]:
    """Positions in rounds, no id twice in a round, in order of appearance.

    Lago calls the second of two equal ids in one batch a duplicate and refuses the whole batch.
    """
    seen: Counter[str] = Counter()
    found: list[list[int]] = []
    for position, transaction_id in enumerate(transaction_ids):
        if seen[transaction_id] == len(found):
            found.append([])
        found[seen[transaction_id]].append(position)
        seen[transaction_id] += 1
    return found


def pack(positions: Sequence[int], items: Sequence[Item], batch_size: int) -> list[list[int]]:
    """Positions in batches of at most `batch_size` and `MAX_BODY_BYTES`; an event that is larger travels alone."""
    packed: list[list[int]] = []
    room = 0
    for position in positions:
        size = len(items[position].value) + 1
        if not packed or len(packed[-1]) == batch_size or size > room:
            packed.append([])
            room = MAX_BODY_BYTES - len(_HEAD) - len(_TAIL)
        packed[-1].append(position)
        room -= size
    return packed
