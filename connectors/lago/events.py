"""Requests about events: posts them, alone or in batches, and reads them."""

from array import array
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from connectors.lago.errors import LagoUnavailable
from connectors.lago.responses import EventShape, StoredEvent
from connectors.lago.transport import API, PAGE, LagoTransport, Query, quoted, read
from schemas.moments import lago_timestamp, parse_us, to_datetime
from schemas.records import LagoEvent
from streams.core.delivery.verdicts import HttpResponse

#: Number of events on a metric that `newest_events` reads.
NEWEST = 100
#: Reasons why a list of events is incomplete.
TOO_MANY, MOVED, COPIES = "too_many", "moved", "copies"
#: How often a list is read again if it changes between its pages.
_READINGS = 5


class EventsApi(LagoTransport):
    """`/events`."""

    async def post_batch(self, body: bytes) -> HttpResponse:
        """Post `{"events": [...]}` without changing it. A response with any status is returned.

        Raises:
            LagoUnavailable: `connect`: nothing was sent; `timeout` or `no_answer`: Lago may have stored it.
        """
        response = await self._send("post_batch", "POST", f"{self.root}{API}/events/batch", body=body)
        return HttpResponse(response.status_code, response.headers, response.content, self._now())

    async def get_event(self, transaction_id: str) -> LagoEvent | None:
        """Return the stored event, with its timestamp as it was sent; None if it does not exist. Raises:
        LagoIntegrationError.
        """
        event = await self._get_or_none("get_event", f"/events/{quoted(transaction_id)}", "event", EventShape)
        if event is None or event.transaction_id != transaction_id:
            return None
        return read(event_of, event)

    async def newest_events(self, code: str) -> list[EventShape]:
        """Return the newest events on a metric, of all subscriptions, at most 100. Raises: LagoIntegrationError."""
        return await self._every("newest_events", "/events", "events", EventShape, {"code": code}, most=NEWEST)

    async def events_between(
        self, external_subscription_id: str, code: str, from_us: int, until_us: int, most: int
    ) -> list[LagoEvent]:
        """Return every copy of a subscription's events on a metric with a timestamp in `[from, until)`, the newest
        `most`.

        If the total changes between two pages, the list is read again. A new event moves the last event of a page to
        the next page, where it would look like a copy.

        Raises: LagoIntegrationError
        """
        moments = {"timestamp_from": _iso_ms(from_us), "timestamp_to": _iso_ms(until_us - 1)}
        query = {"external_subscription_id": external_subscription_id, "code": code, **moments}
        for _ in range(_READINGS):
            if (listed := await self._at_one_moment(query, most)) is not None:
                return [read(event_of, event) for event in listed]
        raise LagoUnavailable("bad_answer", f"events: the list changed between its pages, {_READINGS} times")

    async def _at_one_moment(self, query: Query, most: int) -> list[EventShape] | None:
        """Read a list of events page by page; None = it changed meanwhile."""
        listed: list[EventShape] = []
        number, pages, total = 1, 1, -1
        while number <= pages and len(listed) < most:
            page = await self._page(
                "events", "/events", "events", EventShape, query, number=number, size=min(most, PAGE)
            )
            if total not in {-1, page.total}:
                return None
            if not page.members:  # a wrong number of pages must not cause requests without an end
                break
            listed += page.members
            pages, total, number = page.pages, page.total, number + 1
        return listed[:most]

    async def read_events_of(
        self,
        external_subscription_id: str | None,
        code: str,
        from_us: int,
        until_us: int,
        most: int,
        take: Callable[[StoredEvent], None],
    ) -> str:
        """Read every copy of a subscription's events on a metric with a timestamp in `[from, until)`, page by page.

        `take` is called with each copy. Lago stores timestamps to the millisecond.

        Args:
            external_subscription_id: None = all subscriptions.

        Returns:
            `""` = the list is complete; `TOO_MANY` = there are more than `most`; `MOVED` = new events arrived between
            two pages; `COPIES` = the list has several copies of an event, as with ClickHouse.

        Raises:
            LagoIntegrationError
        """
        moments = {"timestamp_from": _iso_ms(from_us), "timestamp_to": _iso_ms(until_us - 1)}
        query: Query = {"code": code, **moments}
        if external_subscription_id is not None:
            query = {"external_subscription_id": external_subscription_id, **query}
        # Only eight bytes of each id are stored, not the id. Two ids with equal bytes count as COPIES.
        ids, number, pages, total = array("Q"), 1, 1, -1
        while number <= pages:
            page = await self._page("events", "/events", "events", StoredEvent, query, number=number, size=PAGE)
            if page.total > most:
                return TOO_MANY
            if total not in {-1, page.total}:
                return MOVED
            if not page.members:
                total = page.total
                break
            for member in page.members:
                take(member)
                ids.append(int.from_bytes(blake2b(member.transaction_id.encode(), digest_size=8).digest()))
            pages, total, number = page.pages, page.total, number + 1
        if len(ids) != total:
            return MOVED
        return "" if len(set(ids)) == total else COPIES


def _iso_ms(us: int) -> str:
    return to_datetime(us).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event_of(event: EventShape) -> LagoEvent:
    """Convert the event to the form in which it is sent. Raises: Rejected `bad_time`."""
    return LagoEvent(
        transaction_id=event.transaction_id,
        external_subscription_id=event.external_subscription_id or "",
        code=event.code,
        timestamp=lago_timestamp(parse_us(event.timestamp)),
        precise_total_amount_cents=event.precise_total_amount_cents or "0",
        properties={name: _text(value) for name, value in event.properties.items()},
    )


def _text(value: msgspec.Raw) -> str:
    """Return the value of a JSON text; any other value as JSON."""
    decoded = msgspec.json.decode(value)
    return decoded if isinstance(decoded, str) else bytes(value).decode()
