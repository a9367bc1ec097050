"""A Lago in virtual time for the laws of delivery: the sandbox's own stores and checks, with faults on demand.

tests/contract/test_doubles_of_lago.py holds it to the same contract as the sandbox behind HTTP.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from connectors.lago_sandbox.refusals import SandboxRefusal, invalid, invalid_field
from connectors.lago_sandbox.store import ClickhouseStore, EventLog, EventStore, PostgresStore
from connectors.lago_sandbox.stored_event import Event
from connectors.lago_sandbox.validation import MAX_BATCH, Incoming, attempt, checked
from schemas.errors import Unavailable
from schemas.records import LagoEvent
from streams.core.delivery.batches import Item
from streams.core.delivery.verdicts import HttpResponse

#: What may happen to one post, before or after the batch was stored.
FAULTS = (
    "500",
    "500 after storing",
    "503",
    "408 after storing",
    "no_answer",
    "no_answer after storing",
    "timeout",
    "timeout after storing",
    "connect",
    "429",
    "401",
    "403",
    "404",
    "400",
    "413",
    "422",
    "proxy page",
    "proxy page after storing",
    "short echo after storing",
    "other echo",
    "other echo after storing",
)
EXISTS = {"transaction_id": ["value_already_exist"]}


def event(transaction_id: str, cents: str = "1.25", timestamp: str = "1741219251.590") -> LagoEvent:
    return LagoEvent(transaction_id, "sub_1", "llm_cost", timestamp, cents, {"unit": "7"})


def item(transaction_id: str, *, resent: bool = False, cents: str = "1.25", padding: int = 0) -> Item:
    """Return an item as the meter writes it; `padding` bytes of blanks make it heavy."""
    value = msgspec.json.encode(event(transaction_id, cents))
    return Item(transaction_id, value + b" " * padding, resent)


@dataclass
class ScriptedLago:
    """Implements `LagoEventsApi`.

    Fields:
        fault: asked for each post with its number (from 0) and its ids; None = none.
        index_errors: transaction id to the error that its index gets.
        poison: ids whose batch Lago cannot store: 500, always.
        unique: False = ClickHouse without deduplication: repeats are stored again.
        whole_batches: False = Lago before v1.39.0: refused for a duplicate, a batch stores its other events.
        latency_s: of each request.
    """

    fault: Callable[[int, list[str]], str | None] = lambda _number, _ids: None
    index_errors: dict[str, object] = field(default_factory=dict)
    poison: frozenset[str] = frozenset()
    unique: bool = True
    whole_batches: bool = True
    latency_s: float = 0.01
    sick: bool = False
    too_heavy: int = 10**9
    store: list[LagoEvent] = field(default_factory=list)
    posts: list[list[str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    look_ups: list[str] = field(default_factory=list)
    look_up_fails: Callable[[str], bool] = lambda _id: False
    health_checks: int = 0
    in_flight: int = 0
    most_in_flight: int = 0

    def __post_init__(self) -> None:
        log = EventLog(lambda _subscription: (), lambda _subscription, _at, _received: False)
        self._events: EventStore = PostgresStore(log) if self.unique else ClickhouseStore(log, dedup=False)
        self._events.accept([_as_stored(one) for one in self.store])

    def stored(self, transaction_id: str) -> list[LagoEvent]:
        return [event for event in self.store if event.transaction_id == transaction_id]

    async def healthy(self) -> bool:
        self.health_checks += 1
        await asyncio.sleep(self.latency_s)
        return not self.sick

    async def get_event(self, transaction_id: str) -> LagoEvent | None:
        self.look_ups.append(transaction_id)
        await asyncio.sleep(self.latency_s)
        if self.look_up_fails(transaction_id):
            raise Unavailable("http_500")
        return next(iter(self.stored(transaction_id)), None)

    async def post_batch(self, body: bytes) -> HttpResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s)
            return self._answer(body)
        finally:
            self.in_flight -= 1

    def _answer(self, body: bytes) -> HttpResponse:
        events = [msgspec.convert(one, LagoEvent) for one in json.loads(body)["events"]]
        ids = [one.transaction_id for one in events]
        number = len(self.posts)
        self.posts.append(ids)
        self.bodies.append(body)
        fault, _, after = (self.fault(number, ids) or "").partition(" after ")
        if not fault or after:
            refused = self._store(events)
            if not fault or refused:
                return refused or _json(200, {"events": [{"transaction_id": one} for one in ids]})
        return _fail(fault, ids)

    def _store(self, events: list[LagoEvent]) -> HttpResponse | None:
        """Return None where every event was stored; otherwise the refusal."""
        ids = [one.transaction_id for one in events]
        if sum(map(len, ids)) > self.too_heavy:
            return HttpResponse(413, {}, b"<html>413</html>")
        if self.poison & set(ids):
            return HttpResponse(500, {}, b"")
        try:
            if len(events) > MAX_BATCH:
                raise invalid_field("events", "too_many_events")
            if errors := {str(n): self.index_errors[one] for n, one in enumerate(ids) if one in self.index_errors}:
                raise invalid(errors)
            self._insert(events, checked([_as_stored(one) for one in events]))
        except SandboxRefusal as refusal:
            return _json(refusal.status, refusal.body)
        return None

    def _insert(self, events: list[LagoEvent], rows: list[Event]) -> None:
        refused = self._events.accept(rows)
        if refused and self.whole_batches:
            raise invalid({str(index): EXISTS for index in refused})
        fresh = [index for index in range(len(events)) if index not in refused]
        if refused:
            self._events.accept([rows[index] for index in fresh])
        self.store += [events[index] for index in fresh]
        if refused:
            raise invalid({str(index): EXISTS for index in refused})


def _as_stored(one: LagoEvent) -> Event:
    created = attempt(Incoming(**{**msgspec.structs.asdict(one), "properties": msgspec.Raw(b"{}")}), 0, 1)
    assert isinstance(created, Event)
    return created


def _fail(fault: str, ids: list[str]) -> HttpResponse:
    if fault in ("no_answer", "timeout", "connect"):
        raise Unavailable(fault)
    if fault == "proxy page":
        return HttpResponse(200, {"Content-Type": "text/html"}, b"<html>Sign in to the network</html>")
    if fault == "short echo":
        return _json(200, {"events": [{"transaction_id": one} for one in ids[1:]]})
    if fault == "other echo":
        return _json(200, {"events": [{"transaction_id": f"another {one}"} for one in ids]})
    if fault == "lago 400":
        return _json(400, {"status": 400, "error": "BadRequest: param is missing"})
    if fault == "429":
        return HttpResponse(429, {"X-RateLimit-Reset": "2"}, b"{}")
    if fault == "503":
        return HttpResponse(503, {"Retry-After": "20"}, b"")
    return HttpResponse(int(fault), {}, b"<html>")


def _json(status: int, body: object) -> HttpResponse:
    return HttpResponse(status, {"Content-Type": "application/json"}, json.dumps(body).encode())
