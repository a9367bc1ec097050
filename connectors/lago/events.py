"""Events: posted as they are, singly or in batches, and read again."""

import msgspec

from connectors.lago.wire import API, Wire, quoted, read
from schemas.moments import lago_timestamp, parse_us
from schemas.records import LagoEvent
from streams.core.answers import Answer


class EventShape(msgspec.Struct):
    """An event as Lago shows it; `timestamp` is ISO 8601."""

    transaction_id: str
    external_subscription_id: str | None
    code: str
    timestamp: str
    precise_total_amount_cents: str | None = None
    properties: dict[str, msgspec.Raw] = {}


class Events(Wire):
    """`/events`."""

    async def post_batch(self, body: bytes) -> Answer:
        """Post `{"events": [...]}` as it is; any HTTP answer is an answer.

        Raises:
            LagoUnavailable: `connect` (nothing was sent), `timeout` or `no_answer` (it may have been stored).
        """
        return await self._posted("post_batch", "/events/batch", body)

    async def post_event(self, body: bytes) -> Answer:
        """Post `{"event": {...}}`; otherwise as `post_batch`."""
        return await self._posted("post_event", "/events", body)

    async def get_event(self, transaction_id: str) -> LagoEvent | None:
        """The stored event, its timestamp as it is sent; None where Lago knows none. Raises: LagoIntegrationError."""
        found = await self._found("get_event", f"/events/{quoted(transaction_id)}", "event", EventShape)
        if found is None or found.transaction_id != transaction_id:
            return None
        return read(event_of, found)

    async def _posted(self, name: str, path: str, body: bytes) -> Answer:
        response = await self._send(name, "POST", f"{self.root}{API}{path}", body=body)
        return Answer(response.status_code, response.headers, response.content, self._now())


def event_of(found: EventShape) -> LagoEvent:
    """The event as it would be sent. Raises: Rejected `bad_time`."""
    return LagoEvent(
        transaction_id=found.transaction_id,
        external_subscription_id=found.external_subscription_id or "",
        code=found.code,
        timestamp=lago_timestamp(parse_us(found.timestamp)),
        precise_total_amount_cents=found.precise_total_amount_cents or "0",
        properties={name: _text(value) for name, value in found.properties.items()},
    )


def _text(value: msgspec.Raw) -> str:
    """A JSON text as itself, anything else as its JSON."""
    decoded = msgspec.json.decode(value)
    return decoded if isinstance(decoded, str) else bytes(value).decode()
