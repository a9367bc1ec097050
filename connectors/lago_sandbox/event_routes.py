"""The events endpoints.

Source: `app/controllers/api/v1/events_controller.rb`, `app/serializers/v1/event_serializer.rb`,
`app/queries/events_query.rb` of lago-api.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from aiohttp import web

from connectors.lago_sandbox.answers import json_answer, page, read_json
from connectors.lago_sandbox.coercion import InvalidTimestamp, Unstorable, ruby_decimal, text
from connectors.lago_sandbox.faults import Faults
from connectors.lago_sandbox.identifiers import ORGANIZATION, event_id
from connectors.lago_sandbox.injection import Handle, Injection
from connectors.lago_sandbox.instants import iso, iso_ms, parse_iso
from connectors.lago_sandbox.refusals import crashed, invalid, invalid_field, not_found
from connectors.lago_sandbox.state import Sandbox
from connectors.lago_sandbox.stored_event import Event
from connectors.lago_sandbox.validation import (
    MAX_BATCH,
    Incoming,
    attempt,
    checked,
    missing_fields,
    read_batch,
    read_single,
)


class EventRoutes:
    """`POST /events`, `POST /events/batch`, `GET /events`, `GET /events/{transaction_id}`."""

    def __init__(self, sandbox: Sandbox, faults: Faults, injection: Injection, *, whole_batches: bool = True) -> None:
        self._sandbox = sandbox
        self._faults = faults
        self._injection = injection
        self._whole_batches = whole_batches

    def routes(self) -> list[web.RouteDef]:
        """Return the routes below `/api/v1`."""
        return [
            web.post("/api/v1/events", self.create),
            web.post("/api/v1/events/batch", self.create_batch),
            web.get("/api/v1/events", self.index),
            web.get("/api/v1/events/{transaction_id:[^/]+}", self.show),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Store one event. The insert checks mandatory fields, so only the Postgres store checks them."""
        self._sandbox.posts += 1
        sent = read_single(await read_json(request))
        event = self._attempts([sent])[0]

        async def handle() -> web.StreamResponse:
            if isinstance(event, Unstorable):
                raise crashed() from event
            if isinstance(event, InvalidTimestamp):
                raise invalid_field("timestamp", "invalid_format") from event
            missing = missing_fields(event)
            if missing and self._sandbox.events.kind == "postgres":
                raise invalid(missing)
            if self._store([event]):
                raise invalid_field("transaction_id", "value_already_exist")
            return json_answer({"event": self._posted(event)})

        return await self._under_faults(request, [sent], handle, lambda: {"event": self._posted(_right(event))})

    async def create_batch(self, request: web.Request) -> web.StreamResponse:
        """Store all of a batch, or nothing: then the answer names the wrong indexes."""
        self._sandbox.posts += 1
        self._sandbox.batches += 1
        sent = read_batch(await read_json(request))
        attempts = self._attempts(sent[:MAX_BATCH])

        async def handle() -> web.StreamResponse:
            if len(sent) > MAX_BATCH:
                raise invalid_field("events", "too_many_events")
            events = checked(attempts)
            if refused := self._store(events):
                if not self._whole_batches:
                    self._store([event for index, event in enumerate(events) if index not in refused])
                raise invalid({str(index): {"transaction_id": ["value_already_exist"]} for index in refused})
            return json_answer({"events": [self._posted(event) for event in events]})

        def posted() -> dict[str, Any]:
            return {"events": [self._posted(_right(event)) for event in attempts]}

        return await self._under_faults(request, sent, handle, posted)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Return the first copy with this id, of any subscription."""
        copies = self._sandbox.events.log.copies(request.match_info["transaction_id"])
        if not copies:
            raise not_found("event")
        return json_answer({"event": self.shown(copies[0])})

    async def index(self, request: web.Request) -> web.StreamResponse:
        """Copies by subscription, code and event time (ISO 8601, both ends included), newest first."""
        query = request.query
        since, until = (_moment(query.get(name), name) for name in ("timestamp_from", "timestamp_to"))
        external_id, code, log = query.get("external_subscription_id"), query.get("code"), self._sandbox.events.log
        events = [
            event
            for event in (log if external_id is None else log.of_subscription(external_id))
            if (code is None or event.code == code)
            and (since is None or event.ts_us >= since)
            and (until is None or event.ts_us <= until)
        ]
        by_arrival = self._sandbox.events.kind == "clickhouse"
        events.sort(key=lambda e: (-(e.received_us if by_arrival else e.ts_us), e.transaction_id))
        page_members, meta = page(events, query)
        return json_answer({"events": [self.shown(event) for event in page_members], "meta": meta})

    def shown(self, event: Event) -> dict[str, Any]:
        """Return a stored event in Lago's JSON."""
        if self._sandbox.events.kind == "postgres":
            lago_id = event_id(event.subscription, event.transaction_id)
        else:
            arrival = event.received_us // 1_000_000
            lago_id = f"{ORGANIZATION}-{event.subscription}-{event.transaction_id}-{arrival}"
        return {
            "lago_id": lago_id,
            "transaction_id": event.transaction_id,
            "lago_customer_id": None,
            "code": event.code,
            "timestamp": iso_ms(event.ts_us),
            "precise_total_amount_cents": None if event.cents is None else ruby_decimal(Decimal(event.cents)),
            "properties": msgspec.Raw(event.properties),
            "lago_subscription_id": None,
            "external_subscription_id": event.subscription,
            "created_at": iso(event.received_us),
        }

    def _posted(self, event: Event) -> dict[str, Any]:
        """Return the posted event. In the ClickHouse store it is not saved yet when the response is sent, so it has no
        id and no creation time.
        """
        body = self.shown(event)
        return body if self._sandbox.events.kind == "postgres" else body | {"lago_id": None, "created_at": None}

    def _attempts(self, sent: Sequence[Incoming]) -> list[Event | InvalidTimestamp | Unstorable]:
        """Return the events that would be stored; recorded as sent, independent of the result of the request."""
        now_us, unit_us = self._sandbox.now_us(), self._sandbox.events.unit_us
        attempts = [attempt(incoming, now_us, unit_us) for incoming in sent]
        self._sandbox.offer([event for event in attempts if isinstance(event, Event)])
        return attempts

    def _store(self, events: list[Event]) -> list[int]:
        try:
            return self._sandbox.accept(events)
        except Unstorable as error:
            raise crashed() from error

    async def _under_faults(
        self, request: web.Request, sent: Sequence[Incoming], handle: Handle, posted: Callable[[], dict[str, Any]]
    ) -> web.StreamResponse:
        """Args: posted: the answer to events that were stored."""
        ids = [text(incoming.transaction_id) or "" for incoming in sent]
        rule = self._faults.draw(request.method, request.path, ids)
        if rule is not None and rule.kind == "lose":
            return json_answer(posted())
        return await self._injection.run(request, rule, handle)


def _right(attempt: Event | InvalidTimestamp | Unstorable) -> Event:
    """Return the event of a request that Lago would take. Raises: SandboxRefusal."""
    if isinstance(attempt, InvalidTimestamp):
        raise invalid_field("timestamp", "invalid_format") from attempt
    if isinstance(attempt, Unstorable):
        raise crashed() from attempt
    return attempt


def _moment(sent: str | None, name: str) -> int | None:
    if not sent:
        return None
    moment = parse_iso(sent)
    if moment is None:
        raise invalid_field(name, "invalid_date")
    return moment
