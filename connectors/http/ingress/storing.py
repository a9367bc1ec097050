"""Every element of a body is durable, in the raw topic or with a reason in the rejected one, before anybody answers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from connectors.http.ingress.bodies import Element, split
from connectors.http.ingress.rejections import NOT_JSON, TOO_LARGE, Refused, rejection
from connectors.http.ingress.strip import customer_of_rest, strip
from connectors.kafka.producer import Record
from schemas.errors import Rejected, Unavailable

#: A slice is parsed without a pause and then awaits its acks: bounds memory and the event loop's stalls.
_SLICE_ELEMENTS = 500
_SLICE_BYTES = 4 << 20
#: Bodies above this are cut into elements in a thread.
_LARGE_BODY = 256 << 10


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
    """

    sender: Sender
    raw_topic: str
    rejected_topic: str
    customer_id_fields: tuple[str, ...]
    now_us: Callable[[], int]

    async def keep(self, body: bytes, shape: str, wrappers: tuple[str, ...]) -> Outcome:
        """Store all elements of `body`; the order inside a body is kept for each customer.

        Args:
            shape: of an element that does not show its own.
            wrappers: see `split`.

        Raises:
            Refused: the body as a whole; its rejection is stored.
            Unavailable: not everything is known to be durable; the body has to come again.
        """
        at = self.now_us()
        try:
            if len(body) < _LARGE_BODY:
                elements = split(body, wrappers)
            else:
                elements = await asyncio.to_thread(split, body, wrappers)
        except Refused as refused:
            value = await asyncio.to_thread(rejection, refused, body, at)
            await self.sender.send_all([(self.rejected_topic, None, value, at // 1000)])
            raise
        outcome = Outcome()
        step = max(1, min(_SLICE_ELEMENTS, _SLICE_BYTES * len(elements) // (len(body) + 1)))
        for start in range(0, len(elements), step):
            records, places = self._records_of(elements, start, step, shape, at, outcome)
            if records and (refusals := await self.sender.send_all(records)):
                too_large = {places[index]: records[index] for index in refusals}
                await self._keep_too_large(too_large, elements, at, outcome)
        if len(elements) == 1 and outcome.rejected == [(0, NOT_JSON)]:
            raise Refused(NOT_JSON)
        return outcome

    def _records_of(
        self, elements: Sequence[Element], start: int, step: int, shape: str, at: int, outcome: Outcome
    ) -> tuple[list[Record], list[int]]:
        """The records of one slice of the body, and the places of their elements in it."""
        records: list[Record] = []
        places: list[int] = []
        at_ms = at // 1000
        for index, element in enumerate(elements[start : start + step], start):
            try:
                stripped = strip(element, shape, at, self.customer_id_fields)
            except Refused as refused:
                key = customer_of_rest(refused, shape, self.customer_id_fields)
                value = rejection(refused, bytes(memoryview(element)), at)
                records.append((self.rejected_topic, key, value, at_ms))
                outcome.rejected.append((index, refused.reason))
            else:
                if stripped is None:
                    outcome.ignored += 1
                    continue
                records.append((self.raw_topic, stripped[0], stripped[1], at_ms))
                outcome.accepted += 1
            places.append(index)
        return records, places

    async def _keep_too_large(
        self, refused: dict[int, Record], elements: Sequence[Element], at: int, outcome: Outcome
    ) -> None:
        """What Kafka refuses for its size becomes a rejection; a refused rejection leaves nothing to keep."""
        why = Refused(TOO_LARGE, "Kafka takes no record of this size")
        again: list[Record] = []
        for place, (topic, key, _, at_ms) in refused.items():
            if topic == self.raw_topic:
                value = rejection(why, bytes(memoryview(elements[place])), at)
                again.append((self.rejected_topic, key, value, at_ms))
                outcome.accepted -= 1
                outcome.rejected.append((place, TOO_LARGE))
        if len(again) < len(refused) or await self.sender.send_all(again):
            raise Unavailable("kafka_refused", "not even the rejection")
