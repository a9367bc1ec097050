"""Stores every element of a body, in the raw topic or with a reason in the rejected one, before the request is answered."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from connectors.ingest.body_splitter import Element, WrappedCalls, split, wrapped_in
from connectors.ingest.call_context import ContextFields
from connectors.ingest.odd_elements import OddElements
from connectors.ingest.raw_record import Arrival, Odd, customer_of_rest, strip_noticing, strip_sound
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
#: The most levels of wrappers that are opened, and the most calls in one element of an array.
_WRAPPINGS = 2
_MAX_WRAPPED = 10_000


#: The maximum number and the maximum total bytes of invalid elements that are read in the event loop. More are read in
#: one shared thread, because an element may need fifty times its size for a moment.
_FEW_ODD, _SMALL_ODD = 8, 64 << 10
_BESIDE = ThreadPoolExecutor(1, "odd-elements")


class RecordSender(Protocol):
    """Stores records; see `KafkaProducer.send_all`."""

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]: ...


class RejectedElement(NamedTuple):
    """An element that is not a call: its place in the body, and the reason; `detail` names fields, never values."""

    place: int
    reason: str
    detail: str = ""


@dataclass(slots=True)
class StoreOutcome:
    """The result for a body's elements.

    Fields:
        ignored: number of `null` elements.
        left_out: index of each element that is kept without a part of it, and the part, see `strip_noticing`.
    """

    accepted: int = 0
    ignored: int = 0
    rejected: list[RejectedElement] = field(default_factory=list)
    left_out: list[tuple[int, str]] = field(default_factory=list)


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
            # Most bodies have only one element. If Kafka refuses it, nothing is stored.
            if (
                len(elements) == 1
                and (record := self._sound_record(elements[0], shape, at)) is not None
                and not await self.sender.send_all([record])
            ):
                return StoreOutcome(accepted=1)
            for _ in range(_WRAPPINGS):
                try:
                    outcome = await _Body(self, elements, shape, at).keep(len(body))
                    break
                except WrappedCalls as wrapped:
                    elements = await _in_a_thread_if_large(split, wrapped.inner)
            else:
                outcome = await _Body(self, elements, shape, at).keep(len(body))
        except (InvalidElement, WrappedCalls) as error:
            refused = (
                error
                if isinstance(error, InvalidElement)
                else InvalidElement(TOO_DEEP, "calls are in more than two levels of wrappers")
            )
            value = await asyncio.to_thread(rejection, refused, body, at)
            await self.sender.send_all([(self.rejected_topic, None, value, at // 1000)])
            raise refused from None
        if len(elements) == 1 and [one.reason for one in outcome.rejected] == [NOT_JSON]:
            raise InvalidElement(NOT_JSON, outcome.rejected[0].detail)
        return outcome

    def _sound_record(self, element: Element, shape: str, at: int) -> Record | None:
        """Return the record of a valid element; None = the element may be invalid, and must be read field by field."""
        try:
            key, value = strip_sound(element, shape, Arrival(at, self.customer_id_fields, kept=self.kept))
        except (Odd, WrappedCalls, InvalidElement):
            return None
        return self.raw_topic, key, value, at // 1000


class _Body:
    """The elements of one body while they are stored."""

    def __init__(self, store: ElementStore, elements: Sequence[Element], shape: str, at: int) -> None:
        self._store = store
        self._elements = elements
        self._shape = shape
        self._at = at
        self._at_ms = at // 1000
        self._arrival = Arrival(at, store.customer_id_fields, kept=store.kept)
        self._outcome = StoreOutcome()

    async def keep(self, size: int) -> StoreOutcome:
        """Store the elements of a body of `size` bytes, slice by slice.

        Raises:
            WrappedCalls: the only element contains the calls; nothing is stored yet.
            Unavailable: not everything is known to be durable.
        """
        elements, send_all = self._elements, self._store.sender.send_all
        odd: OddElements | None = None
        step = max(1, min(_SLICE_ELEMENTS, _SLICE_BYTES * len(elements) // (size + 1)))
        for start in range(0, len(elements), step):
            records, places, later = self._sound_records(start, step)
            if later:
                odd = odd or OddElements(is_alone=len(elements) == 1)
                records, places = await self._with_odd(records, places, later, odd)
            if records and (refusals := await send_all(records)):
                await self._keep_too_large([(places[index], records[index]) for index in refusals])
        if odd is not None and odd.shared and await send_all([self._shared(odd)]):
            raise Unavailable("kafka_refused", "Kafka refuses the rejection too")
        return self._outcome

    def _sound_records(self, start: int, step: int) -> tuple[list[Record], list[int], list[tuple[int, int]]]:
        """Return the records of one slice and the indexes of their elements; and for each invalid element its index and
        the number of records before it.
        """
        records: list[Record] = []
        places: list[int] = []
        later: list[tuple[int, int]] = []
        elements, shape, arrival, at_ms, topic = (
            self._elements,
            self._shape,
            self._arrival,
            self._at_ms,
            self._store.raw_topic,
        )
        for index in range(start, min(start + step, len(elements))):
            try:
                key, value = strip_sound(elements[index], shape, arrival)
            except (Odd, WrappedCalls, InvalidElement):
                later.append((len(records), index))
                continue
            records.append((topic, key, value, at_ms))
            places.append(index)
        self._outcome.accepted += len(records)
        return records, places, later

    async def _with_odd(
        self, sound: list[Record], places: list[int], later: Sequence[tuple[int, int]], odd: OddElements
    ) -> tuple[list[Record], list[int]]:
        """Insert the records of the invalid elements at their places, so that each customer's order stays the same.

        Many are read in a thread.
        """
        indexes = [index for _, index in later]
        size = sum(memoryview(self._elements[index]).nbytes for index in indexes)
        if len(indexes) <= _FEW_ODD and size <= _SMALL_ODD:
            made = self._read_odd(indexes, odd)
        else:
            made = await asyncio.get_running_loop().run_in_executor(_BESIDE, self._read_odd, indexes, odd)
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

    def _read_odd(self, indexes: Sequence[int], odd: OddElements) -> list[list[Record]]:
        return [self._records_of_odd(index, odd) for index in indexes]

    def _records_of_odd(self, index: int, odd: OddElements) -> list[Record]:
        """Return the records of an element that is read field by field, or of the calls in it. Raises: WrappedCalls:
        see `keep`.
        """
        records: list[Record] = []
        store, outcome = self._store, self._outcome
        todo: list[tuple[Element, InvalidElement | None, int]] = [(self._elements[index], None, 0)]
        while todo:
            one, why, depth = todo.pop()
            try:
                if why is not None:
                    raise why
                stripped = strip_noticing(one, self._shape, self._arrival, odd.budget)
            except WrappedCalls as wrapped:
                if odd.is_alone and not depth:
                    raise
                inner, why = _unwrapped(wrapped, depth)
                todo += [(each, None, depth + 1) for each in reversed(inner)]
                if why is not None:
                    todo.append((one, why, depth))
            except InvalidElement as refused:
                outcome.rejected.append(RejectedElement(index, refused.reason, refused.detail))
                if not odd.shares(refused, one, index):
                    whose = customer_of_rest(refused, self._shape, store.customer_id_fields)
                    value = rejection(refused, bytes(memoryview(one)), self._at)
                    records.append((store.rejected_topic, whose, value, self._at_ms))
            else:
                if stripped is None:
                    outcome.ignored += 1
                else:
                    key, value, left_out = stripped
                    records.append((store.raw_topic, key, value, self._at_ms))
                    outcome.accepted += 1
                    if left_out:
                        outcome.left_out.append((index, left_out))
        return records

    def _shared(self, odd: OddElements) -> Record:
        """Make one rejection for all elements without any field of a call that have no rejection of their own."""
        sentence = f"{odd.shared} elements without anything of a call, the first of them at index {odd.first}"
        value = shared_rejection(InvalidElement(odd.reason, sentence), odd.length, odd.digest.hexdigest(), self._at)
        return self._store.rejected_topic, None, value, self._at_ms

    async def _keep_too_large(self, refused: Sequence[tuple[int, Record]]) -> None:
        """Replace records that Kafka refuses for their size by rejections.

        Raises:
            Unavailable: Kafka refuses a rejection too.
        """
        why = InvalidElement(TOO_LARGE, "Kafka refuses a record of this size")
        again: list[Record] = []
        for place, (topic, key, _, at_ms) in refused:
            if topic == self._store.raw_topic:
                value = rejection(why, bytes(memoryview(self._elements[place])), self._at)
                again.append((self._store.rejected_topic, key, value, at_ms))
                self._outcome.accepted -= 1
                self._outcome.rejected.append(RejectedElement(place, TOO_LARGE, why.detail))
        if len(again) < len(refused) or await self._store.sender.send_all(again):
            raise Unavailable("kafka_refused", "Kafka refuses the rejection too")


def _cut(body: bytes | memoryview) -> list[Element]:
    """Return the elements of a body; if the body is one wrapper, the elements in it. Raises: InvalidElement."""
    elements = split(body)
    for _ in range(_WRAPPINGS):
        if len(elements) != 1 or (inner := wrapped_in(elements[0])) is None:
            break
        elements = split(inner)
    return elements


def _unwrapped(wrapped: WrappedCalls, depth: int) -> tuple[list[Element], InvalidElement | None]:
    """Return the elements in one of several elements, or the reason why it is refused."""
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
