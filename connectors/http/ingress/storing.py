"""Every element of a body is durable, in the raw topic or with a reason in the rejected one, before anybody answers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from connectors.http.ingress.bodies import Element, Wrapped, split, wrapped_in
from connectors.http.ingress.context import Kept
from connectors.http.ingress.rejections import NOT_JSON, TOO_DEEP, TOO_LARGE, TOO_MANY, Refused, rejection
from connectors.http.ingress.strip import customer_of_rest, strip
from connectors.kafka.producer import Record
from schemas.errors import Rejected, Unavailable

#: A slice is parsed without a pause and then awaits its acks: bounds memory and the event loop's stalls.
_SLICE_ELEMENTS = 500
_SLICE_BYTES = 4 << 20
#: Bodies above this are cut into elements in a thread.
_LARGE_BODY = 256 << 10
#: How often calls may be wrapped, and how many may be in one element of an array.
_WRAPPINGS = 2
_MAX_WRAPPED = 10_000


class Sender(Protocol):
    """What stores records; see `KafkaProducer.send_all`."""

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]: ...


@dataclass(slots=True)
class Outcome:
    """What became of a body's elements; `rejected` holds (index, reason), `ignored` counts `null`s."""

    accepted: int = 0
    ignored: int = 0
    rejected: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Store:
    """Where and how elements are stored.

    Fields:
        raw_topic, rejected_topic: with their prefix.
        customer_id_fields: in order, out of `streams.core.customer_key.CUSTOMER_ID_FIELDS`.
        now_us: microseconds since 1970 UTC.
        kept: what is kept of the calls' context.
    """

    sender: Sender
    raw_topic: str
    rejected_topic: str
    customer_id_fields: tuple[str, ...]
    now_us: Callable[[], int]
    kept: Kept = field(default_factory=Kept)

    async def keep(self, body: bytes, shape: str) -> Outcome:
        """Store all elements of `body`; the order inside a body is kept for each customer.

        Args:
            shape: of an element that does not show its own.

        Raises:
            Refused: the body as a whole; its rejection is stored.
            Unavailable: not everything is known to be durable; the body has to come again.
        """
        at = self.now_us()
        try:
            elements = split(body) if len(body) < _LARGE_BODY else await asyncio.to_thread(_cut, body)
            for _ in range(_WRAPPINGS):
                try:
                    outcome = await self._keep_elements(elements, len(body), shape, at)
                    break
                except Wrapped as wrapped:
                    elements = await _in_a_thread_if_large(split, wrapped.inner)
            else:
                outcome = await self._keep_elements(elements, len(body), shape, at)
        except (Refused, Wrapped) as error:
            refused = error if isinstance(error, Refused) else Refused(TOO_DEEP, "calls are wrapped more than twice")
            value = await asyncio.to_thread(rejection, refused, body, at)
            await self.sender.send_all([(self.rejected_topic, None, value, at // 1000)])
            raise refused from None
        if len(elements) == 1 and outcome.rejected == [(0, NOT_JSON)]:
            raise Refused(NOT_JSON)
        return outcome

    async def _keep_elements(self, elements: Sequence[Element], size: int, shape: str, at: int) -> Outcome:
        """Raises: Wrapped: it is one element, which holds the calls; nothing is stored yet."""
        outcome = Outcome()
        step = max(1, min(_SLICE_ELEMENTS, _SLICE_BYTES * len(elements) // (size + 1)))
        for start in range(0, len(elements), step):
            records, places = self._records_of(elements, start, step, shape, at, outcome)
            if records and (refusals := await self.sender.send_all(records)):
                too_large = [(places[index], records[index]) for index in refusals]
                await self._keep_too_large(too_large, elements, at, outcome)
        return outcome

    def _records_of(
        self, elements: Sequence[Element], start: int, step: int, shape: str, at: int, outcome: Outcome
    ) -> tuple[list[Record], list[int]]:
        """The records of one slice of the body, and the places of their elements in it."""
        records: list[Record] = []
        places: list[int] = []
        at_ms = at // 1000
        for index in range(start, min(start + step, len(elements))):
            try:
                stripped = strip(elements[index], shape, at, self.customer_id_fields, kept=self.kept)
            except (Wrapped, Refused) as odd:
                if len(elements) == 1 and isinstance(odd, Wrapped):
                    raise
                made = self._records_of_odd(elements[index], odd, shape, at, index, outcome)
                records += made
                places += [index] * len(made)
                continue
            if stripped is None:
                outcome.ignored += 1
                continue
            records.append((self.raw_topic, stripped[0], stripped[1], at_ms))
            places.append(index)
            outcome.accepted += 1
        return records, places

    def _records_of_odd(
        self, element: Element, odd: Wrapped | Refused, shape: str, at: int, index: int, outcome: Outcome
    ) -> list[Record]:
        """What becomes of one element that is no call: of what it wraps, or a rejection."""
        records: list[Record] = []
        todo: list[tuple[Element, Wrapped | Refused | None, int]] = [(element, odd, 0)]
        while todo:
            one, why, depth = todo.pop()
            if why is None:
                try:
                    stripped = strip(one, shape, at, self.customer_id_fields, kept=self.kept)
                except (Wrapped, Refused) as error:
                    why = error
                else:
                    if stripped is None:
                        outcome.ignored += 1
                    else:
                        records.append((self.raw_topic, stripped[0], stripped[1], at // 1000))
                        outcome.accepted += 1
                    continue
            if isinstance(why, Wrapped):
                inner, why = _unwrapped(why, depth)
                todo += [(each, None, depth + 1) for each in reversed(inner)]
            if why is not None:
                key = customer_of_rest(why, shape, self.customer_id_fields)
                value = rejection(why, bytes(memoryview(one)), at)
                records.append((self.rejected_topic, key, value, at // 1000))
                outcome.rejected.append((index, why.reason))
        return records

    async def _keep_too_large(
        self, refused: Sequence[tuple[int, Record]], elements: Sequence[Element], at: int, outcome: Outcome
    ) -> None:
        """What Kafka refuses for its size becomes a rejection; a refused rejection leaves nothing to keep."""
        why = Refused(TOO_LARGE, "Kafka takes no record of this size")
        again: list[Record] = []
        for place, (topic, key, _, at_ms) in refused:
            if topic == self.raw_topic:
                value = rejection(why, bytes(memoryview(elements[place])), at)
                again.append((self.rejected_topic, key, value, at_ms))
                outcome.accepted -= 1
                outcome.rejected.append((place, TOO_LARGE))
        if len(again) < len(refused) or await self.sender.send_all(again):
            raise Unavailable("kafka_refused", "not even the rejection")


def _cut(body: bytes | memoryview) -> list[Element]:
    """The elements of a body, or of what it wraps where it is one wrapper. Raises: Refused."""
    elements = split(body)
    for _ in range(_WRAPPINGS):
        if len(elements) != 1 or (inner := wrapped_in(elements[0])) is None:
            break
        elements = split(inner)
    return elements


def _unwrapped(wrapped: Wrapped, depth: int) -> tuple[list[Element], Refused | None]:
    """What one element of many holds, or why it is refused."""
    if depth == _WRAPPINGS:
        return [], Refused(TOO_DEEP, "calls are wrapped more than twice")
    try:
        inner = split(wrapped.inner)
    except Refused as refused:
        return [], refused
    if len(inner) > _MAX_WRAPPED:
        return [], Refused(TOO_MANY, f"more than {_MAX_WRAPPED} calls in one element")
    return inner, None


async def _in_a_thread_if_large(
    cut: Callable[[bytes | memoryview], list[Element]], body: bytes | memoryview
) -> list[Element]:
    return cut(body) if len(body) < _LARGE_BODY else await asyncio.to_thread(cut, body)
