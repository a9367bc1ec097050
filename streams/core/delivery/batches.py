"""Events to deliver and their outcomes. Puts events into batches by id, number and size."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from schemas.decoding import decoder

Kind = Literal["delivered", "retry", "dead"]

#: The largest body of a batch, bytes: proxies in front of Lago refuse bodies from 1 MiB on (nginx's default).
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
        resent: whether it may have been posted before, by this process or by an earlier owner of the partition.
        compare: whether it was a dead letter, or Lago has refused it as a repeat although it was never posted. Then a
            known id in Lago proves nothing, and Lago's event is compared with it.
        suspect: whether it was given back after failures. Its batch holds only events that have been tried.
        elsewhere: whether an earlier post may have had another timestamp or subscription. Then Lago is asked for it
            before it is posted.
    """

    transaction_id: str
    value: bytes
    resent: bool
    compare: bool = False
    suspect: bool = False
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """The result of one event.

    Fields:
        reason: stable code, also for success: `accepted`, `already_exists`, `confirmed`.
        detail: text for people, at most 500 characters, never a payload.
        attempts: number of posts that contained the event in this delivery.
        maybe_sent: whether it is unknown if Lago stored it. It becomes `resent` of the next item.
        timestamp, subscription: the values of the post if they differ from the event's own, see
            streams/core/delivery/restamp.py; `""` = its own.
        compare: becomes `compare` of the next item.
    """

    kind: Kind
    reason: str
    detail: str
    attempts: int
    maybe_sent: bool = False
    timestamp: str = ""
    subscription: str = ""
    compare: bool = False


@dataclass(slots=True, eq=False)
class EventBatch:
    """Events that are posted together, with the number of their common failures. A batch is equal only to itself.

    Fields:
        members: positions in the delivered sequence.
        family: shared by all parts of one original batch: their failures count as one.
        holds: number of consecutive holds of any cause; the exponent of the backoff.
        fails: number of failures that the batch itself may have caused.
        passed: the breaker's count of successes when the batch first failed.
        doubted: the number of accepted answers when its refusal was first doubted; -1 = it was never doubted.
    """

    members: list[int]
    family: object
    holds: int = 0
    fails: int = 0
    passed: int = 0
    doubted: int = -1

    def cut(self, size: int) -> "EventBatch":
        """Keep the first `size` members; return the rest as a batch with the same history."""
        rest = replace(self, members=self.members[size:])
        self.members = self.members[:size]
        return rest


def body_of(values: Iterable[bytes]) -> bytes:
    """Return the body of `POST /api/v1/events/batch`: the values joined, not encoded again."""
    return _HEAD + b",".join(values) + _TAIL


def subscription_of(value: bytes) -> str:
    """Return the external subscription id of an event; `""` if it has none."""
    try:
        return _whose(value).external_subscription_id
    except msgspec.DecodeError:
        return ""


def rounds(transaction_ids: Sequence[str]) -> list[list[int]]:
    """Return the positions in rounds without equal ids, in the order of the items.

    If two ids in a batch are equal, Lago reports the second one as a duplicate and refuses the whole batch.
    """
    seen: Counter[str] = Counter()
    groups: list[list[int]] = []
    for position, transaction_id in enumerate(transaction_ids):
        if seen[transaction_id] == len(groups):
            groups.append([])
        groups[seen[transaction_id]].append(position)
        seen[transaction_id] += 1
    return groups


def pack(positions: Sequence[int], items: Sequence[Item], batch_size: int) -> list[list[int]]:
    """Return the positions in batches of at most `batch_size` events and `MAX_BODY_BYTES`; a larger event is in a batch
    of its own.
    """
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
