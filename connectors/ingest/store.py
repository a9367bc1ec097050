"""Stores every element of a body, in the raw topic or with a reason in the rejected one, before the request is answered."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from connectors.ingest.body_splitter import Element, WrappedCalls, split, wrapped_in
from connectors.ingest.call_context import ContextFields
from connectors.ingest.odd_elements import OddElements
from connectors.ingest.raw_record import Arrival, Odd, customer_of_rest, strip_arrived, strip_sound
from connectors.ingest.rejection_record import InvalidElement, rejection, shared_rejection
from connectors.kafka.producer import Record
from schemas.errors import Rejected, Unavailable
from schemas.reasons import NOT_JSON, TOO_DEEP, TOO_LARGE, TOO_MANY

#: A slice of elements is parsed without a pause, and then its acknowledgements are awaited. This limits memory and the time
#: for which the event loop is blocked.
_SLICE_ELEMENTS = 500
_SLICE_BYTES = 4 << 20
#: A larger body is split in a thread.
_LARGE_BODY = 256 << 10
#: How many levels of wrappers are opened, and how many calls one element of an array may contain.
_WRAPPINGS = 2
_MAX_WRAPPED = 10_000


#: Up to so many invalid elements, with so many bytes together, are read in the event loop. More are read in one shared thread,
#: because an element may need fifty times its size for a moment.
_FEW_ODD, _SMALL_ODD = 8, 64 << 10
_BESIDE = ThreadPoolExecutor(1, "odd-elements")


class RecordSender(Protocol):
    """Stores records; see `KafkaProducer.send_all`."""

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]: ...


@dataclass(slots=True)
class StoreOutcome:
    """The result for a body's elements; `rejected` has (index, reason), `ignored` counts `null` elements."""

    accepted: int = 0
    ignored: int = 0
    rejected: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ElementStore:
    """Stores the elements of bodies.

    Fields:
        raw_topic, rejected_topic: with their prefix.
        customer_id_fields: in order; from `streams.core.metering.customer_key.CUSTOMER_ID_FIELDS`.
        now_us: microseconds since 1970 UTC.
        kept: which context of the calls is kept.
    """

    sender: RecordSender
    raw_topic: str
    rejected_topic: str
    customer_id_fields: tuple[str, ...]
    now_us: Callable[[], int]
    kept: ContextFields = field(default_factory=ContextFields)

    async def keep(self, body: bytes, shape: str) -> StoreOutcome:
        """Store all elements of `body`. The elements of one customer keep their order.

        Args:
            shape: of an element whose fields do not show its own.

        Raises:
            InvalidElement: the whole body is invalid; its rejection is stored.
            Unavailable: not everything is known to be durable; the sender must send the body again.
        """
        at = self.now_us()
        try:
            elements = split(body) if len(body) < _LARGE_BODY else await asyncio.to_thread(_cut, body)
            for _ in range(_WRAPPINGS):
                try:
                    outcome = await self._keep_elements(elements, len(body), shape, at)
                    break
                except WrappedCalls as wrapped:
                    elements = await _in_a_thread_if_large(split, wrapped.inner)
            else:
                outcome = await self._keep_elements(elements, len(body), shape, at)
        except (InvalidElement, WrappedCalls) as error:
            refused = (
                error
                if isinstance(error, InvalidElement)
                else InvalidElement(TOO_DEEP, "calls are in more than two levels of wrappers")
            )
            value = await asyncio.to_thread(rejection, refused, body, at)
            await self.sender.send_all([(self.rejected_topic, None, value, at // 1000)])
            raise refused from None
        if len(elements) == 1 and outcome.rejected == [(0, NOT_JSON)]:
            raise InvalidElement(NOT_JSON)
        return outcome

    async def _keep_elements(self, elements: Sequence[Element], size: int, shape: str, at: int) -> StoreOutcome:
        """Raises: WrappedCalls: the only element contains the calls; nothing is stored yet."""
        outcome = StoreOutcome()
        odd: OddElements | None = None
        step = max(1, min(_SLICE_ELEMENTS, _SLICE_BYTES * len(elements) // (size + 1)))
        for start in range(0, len(elements), step):
            records, places, later = self._sound_records(elements, start, step, shape, at, outcome)
            if later:
                odd = odd or OddElements(is_alone=len(elements) == 1)
                records, places = await self._with_odd(records, places, later, elements, shape, at, outcome, odd)
            if records and (refusals := await self.sender.send_all(records)):
                too_large = [(places[index], records[index]) for index in refusals]
                await self._keep_too_large(too_large, elements, at, outcome)
        if odd is not None and odd.shared and await self.sender.send_all([self._shared(odd, at)]):
            raise Unavailable("kafka_refused", "Kafka refuses the rejection too")
        return outcome

    def _sound_records(
        self, elements: Sequence[Element], start: int, step: int, shape: str, at: int, outcome: StoreOutcome
    ) -> tuple[list[Record], list[int], list[tuple[int, int]]]:
        """The records of one slice, and the indexes of their elements; of each invalid element the number of records before
        its own, and its index."""
        records: list[Record] = []
        places: list[int] = []
        later: list[tuple[int, int]] = []
        at_ms = at // 1000
        arrival = self._arrival(at)
        for index in range(start, min(start + step, len(elements))):
            try:
                key, value = strip_sound(elements[index], shape, arrival)
            except (Odd, WrappedCalls, InvalidElement):
                later.append((len(records), index))
                continue
            records.append((self.raw_topic, key, value, at_ms))
            places.append(index)
        outcome.accepted += len(records)
        return records, places, later

    async def _with_odd(
        self,
        sound: list[Record],
        places: list[int],
        later: Sequence[tuple[int, int]],
        elements: Sequence[Element],
        shape: str,
        at: int,
        outcome: StoreOutcome,
        odd: OddElements,
    ) -> tuple[list[Record], list[int]]:
        """The same with the records of the invalid elements in their places, so that each customer's order stays.

        Many are read in a thread.
        """
        indexes = [index for _, index in later]
        size = sum(memoryview(elements[index]).nbytes for index in indexes)
        if len(indexes) <= _FEW_ODD and size <= _SMALL_ODD:
            made = self._read_odd(elements, indexes, shape, at, outcome, odd)
        else:
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(_BESIDE, self._read_odd, elements, indexes, shape, at, outcome, odd)
        records: list[Record] = []
        whose: list[int] = []
        before = 0
        for (count, index), some in zip(later, made, strict=True):
            records += sound[before:count]
            whose += places[before:count]
            records += some
            whose += [index] * len(some)
            before = count
        return [*records, *sound[before:]], [*whose, *places[before:]]

    def _read_odd(
        self,
        elements: Sequence[Element],
        indexes: Sequence[int],
        shape: str,
        at: int,
        outcome: StoreOutcome,
        odd: OddElements,
    ) -> list[list[Record]]:
        return [self._records_of_odd(elements[index], shape, at, index, outcome, odd) for index in indexes]

    def _records_of_odd(
        self, element: Element, shape: str, at: int, index: int, outcome: StoreOutcome, odd: OddElements
    ) -> list[Record]:
        """The records of an element that is read field by field, or of the calls in it.

        Raises: WrappedCalls: see `_keep_elements`.
        """
        records: list[Record] = []
        arrival = self._arrival(at)
        todo: list[tuple[Element, InvalidElement | None, int]] = [(element, None, 0)]
        while todo:
            one, why, depth = todo.pop()
            try:
                if why is not None:
                    raise why
                stripped = strip_arrived(one, shape, arrival, odd.budget)
            except WrappedCalls as wrapped:
                if odd.is_alone and not depth:
                    raise
                inner, why = _unwrapped(wrapped, depth)
                todo += [(each, None, depth + 1) for each in reversed(inner)]
                if why is not None:
                    todo.append((one, why, depth))
            except InvalidElement as refused:
                outcome.rejected.append((index, refused.reason))
                if not odd.shares(refused, one, index):
                    key = customer_of_rest(refused, shape, self.customer_id_fields)
                    records.append(
                        (self.rejected_topic, key, rejection(refused, bytes(memoryview(one)), at), at // 1000)
                    )
            else:
                if stripped is None:
                    outcome.ignored += 1
                else:
                    records.append((self.raw_topic, stripped[0], stripped[1], at // 1000))
                    outcome.accepted += 1
        return records

    def _arrival(self, at: int) -> Arrival:
        return Arrival(at, self.customer_id_fields, kept=self.kept)

    def _shared(self, odd: OddElements, at: int) -> Record:
        """One rejection for all elements without anything of a call that have none of their own."""
        sentence = f"{odd.shared} elements without anything of a call, the first of them at index {odd.first}"
        refused = InvalidElement(odd.reason, sentence)
        return self.rejected_topic, None, shared_rejection(refused, odd.length, odd.digest.hexdigest(), at), at // 1000

    async def _keep_too_large(
        self, refused: Sequence[tuple[int, Record]], elements: Sequence[Element], at: int, outcome: StoreOutcome
    ) -> None:
        """Replace records that Kafka refuses for their size by rejections. Raises: Unavailable: Kafka refuses a rejection too."""
        why = InvalidElement(TOO_LARGE, "Kafka refuses a record of this size")
        again: list[Record] = []
        for place, (topic, key, _, at_ms) in refused:
            if topic == self.raw_topic:
                value = rejection(why, bytes(memoryview(elements[place])), at)
                again.append((self.rejected_topic, key, value, at_ms))
                outcome.accepted -= 1
                outcome.rejected.append((place, TOO_LARGE))
        if len(again) < len(refused) or await self.sender.send_all(again):
            raise Unavailable("kafka_refused", "Kafka refuses the rejection too")


def _cut(body: bytes | memoryview) -> list[Element]:
    """The elements of a body; if the body is one wrapper, the elements in it. Raises: InvalidElement."""
    elements = split(body)
    for _ in range(_WRAPPINGS):
        if len(elements) != 1 or (inner := wrapped_in(elements[0])) is None:
            break
        elements = split(inner)
    return elements


def _unwrapped(wrapped: WrappedCalls, depth: int) -> tuple[list[Element], InvalidElement | None]:
    """The elements in one of several elements, or the reason why it is refused."""
    if depth == _WRAPPINGS:
        return [], InvalidElement(TOO_DEEP, "calls are in more than two levels of wrappers")
    try:
        inner = split(wrapped.inner)
    except InvalidElement as refused:
        return [], refused
    if len(inner) > _MAX_WRAPPED:
        return [], InvalidElement(TOO_MANY, f"more than {_MAX_WRAPPED} calls in one element")
    return inner, None


async def _in_a_thread_if_large(
    cut: Callable[[bytes | memoryview], list[Element]], body: bytes | memoryview
) -> list[Element]:
    return cut(body) if len(body) < _LARGE_BODY else await asyncio.to_thread(cut, body)
