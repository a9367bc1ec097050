"""Damaged records that no process of Meterbridge wrote, for every topic: valid records about unbilled usage, changed at random.

None has the key or the id of owed usage, except values that cannot be read at all: those are under the keys of
customers and orgs that pay. A valid record about them would be a forgery, which no reader can recognise.
"""

import struct
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from random import Random

import msgspec
from confluent_kafka import KafkaException, Producer

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.ledger import Position, Window
from schemas.rates import Entry, RateCard
from schemas.records import AuditRecord, DeliveryAttempt, EnrichedUsage, LagoEvent, Manifest, Receipt, Rejection
from schemas.topics import TopicNames
from tests.support.eventually import PATIENCE

VANDAL = "vandal"
_DAY_MS = 86_400_000
_HEADERS = (
    "manifest",
    "seal_seq",
    "raw_partition",
    "control",
    "attempt",
    "not_before",
    "maybe_sent",
    "requeued",
    "reason",
)
_MORE_HEADERS = ("resolves", "how", "audit_id", "origin_topic", "origin_offset", "kind", "", "ü", "x" * 300)
_DEEP = b"[" * 20_000
#: A digit for `str.isdigit`, which `int` refuses.
_NO_NUMBER = "²".encode()
_PIECES = (
    b"\xff",
    b"\x00",
    b"null",
    b"1e999999999",
    b"-1",
    b"9" * 30,
    b"NaN",
    b'"',
    b"{",
    b"]",
    b'"\\ud800"',
    b"true",
    _DEEP,
)


class Vandal:
    """Writes to the topics; `written` counts by topic."""

    def __init__(self, bootstrap: str, topics: TopicNames, seed: int, real: Sequence[str]) -> None:
        self.written: Counter[str] = Counter()
        self._random = Random(f"vandal/{seed}")
        self._topics = topics
        self._real = real
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20})
        self._sound = {topic: [msgspec.json.encode(one) for one in created] for topic, created in _made(topics).items()}
        self._position = msgspec.msgpack.encode(Position(5, 1, "t", 6, "d"))
        self._window = msgspec.msgpack.encode(Window(7, 7, VANDAL, "user", "o", "s", "", "m", "p", (), 1, 1, 1, 1))

    def write(self, count: int) -> None:
        """Write this number of records to each topic. Records that the broker refuses at once are not counted."""
        for topic in self._sound:
            for _ in range(count):
                self._put(topic, self._key(topic), self._changed(self._random.choice(self._sound[topic])))
        for _ in range(count):
            self._put(self._topics.changelog, *self._state())
        for topic in (self._topics.customers, self._topics.orgs):
            self._put(topic, self._random.choice(self._real).encode(), b"\xff" + (self._changed(b"{}") or b""))
        self._producer.poll(0)

    def close(self) -> None:
        """Return when every record was accepted or refused."""
        self._producer.flush(30 * PATIENCE)

    def _put(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        random = self._random
        headers = [
            (random.choice(_HEADERS + _MORE_HEADERS), self._header()) for _ in range(random.choice((0, 0, 1, 3)))
        ]
        now_ms = time.time_ns() // 1_000_000
        at_ms = random.choice((now_ms, now_ms, 0, 1, now_ms - 40 * _DAY_MS, now_ms + 50 * 60_000, 1 << 45))
        try:
            self._producer.produce(topic, value, key, headers=headers, timestamp=at_ms, on_delivery=self._told)
        except (BufferError, KafkaException):
            self._producer.poll(0.1)

    def _told(self, error: object, message: object) -> None:
        if error is None:
            self.written[message.topic()] += 1  # type: ignore[attr-defined]

    def _key(self, topic: str) -> bytes | None:
        key = f"{VANDAL}-{self._random.randrange(50)}".encode()
        odd = None if topic not in (self._topics.customers, self._topics.orgs) else b""
        return self._random.choice((key, key, key, b"", b"\xff\xfe", b"\x00", key * 50, odd))

    def _state(self) -> tuple[bytes, bytes | None]:
        """The changelog of the ledgers: never a key that a ledger has."""
        random = self._random
        number = struct.pack(">q", random.choice((1 << 61, -1, 1 << 40)) - random.randrange(1000))
        key = random.choice(
            (b"w" + number, b"i" + number * 2, b"s" + number * 2, b"u" + number * 2, b"j" + number * 2, b"")
        )
        key = random.choice((key, key, key[:-1], key + b"x", b"\xff", b"positio", b"w", b"j", b"zz"))
        return key, self._changed(random.choice((self._position, self._window, b"\x00" * 32)))

    def _header(self) -> bytes | None:
        manifest = self._sound[self._topics.events][0]
        odd = (None, b"", b"\xff", b"-1", b"0", _NO_NUMBER, b"9" * 40, b"write_off", _DEEP, self._changed(manifest))
        return self._random.choice(odd)

    def _changed(self, value: bytes) -> bytes | None:
        random = self._random
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(len(value) + 1)
            match random.randrange(6):
                case 0 if value and at < len(value):
                    value = value[:at] + bytes((value[at] ^ 1 << random.randrange(8),)) + value[at + 1 :]
                case 1:
                    value = value[:at]
                case 2:
                    value = value[:at] + random.choice(_PIECES) + value[at:]
                case 3:
                    value = self._number(value)
                case 4 if random.random() < 0.2:
                    return random.choice((None, b"", b"null", b'{"zzz":' + _DEEP))
        return value

    def _number(self, value: bytes) -> bytes:
        """Return the JSON with one number replaced by another."""
        places = [at for at, byte in enumerate(value) if byte == ord(":") and value[at + 1 : at + 2].isdigit()]
        if not places:
            return value
        at = self._random.choice(places) + 1
        end = at
        while value[end : end + 1] in b"0123456789.eE-+" and end < len(value):
            end += 1
        odd = (b"-1", b"9000000000000000000", b"9" * 30, b"1e999999999", b"0.5", b"null", b'"1"', b"[]")
        return value[:at] + self._random.choice(odd) + value[end:]


def _made(topics: TopicNames) -> dict[str, list[object]]:
    now_us = time.time_ns() // 1000
    at_s, iso = now_us // 1_000_000, "2026-11-20T12:00:00.000000Z"
    call = {"id": "v", "end_user": VANDAL, "model": "m", "response_cost": 0.01, "startTime": iso, "endTime": iso}
    raw = {"v": 1, "source": "webhook", "shape": "flat", "received_at": now_us, "id_kind": "end_user", "call": call}
    version = MappingVersion(0, "vandal-org", "tenant")
    part = f"meterbridge-{VANDAL}-0-1"
    event = LagoEvent(part, "vandal-sub", "ai_usage", f"{at_s}.000", "0.5", {"unit": "1", "org_id": "vandal-org"})
    return {
        topics.events: [Manifest(0, 1, 2, 2, (1,), "meterbridge"), event],
        topics.raw: [raw],
        topics.rejected: [Rejection("bad_cost", "meter", now_us, "", 1, msgspec.Raw(msgspec.json.encode(raw)))],
        topics.customers: [CustomerRecord(VANDAL, (version,), 1, now_us)],
        topics.orgs: [OrgRecord("vandal-org", periods=(Period("vandal-sub", 0, charged=("ai_usage",)),), updated_at=1)],
        topics.enriched: [
            EnrichedUsage("0" * 31 + "1", 1, VANDAL, "user", "billable", Decimal("0.01"), iso, iso, part=part)
        ],
        topics.retry: [event],
        topics.dlq: [event],
        topics.receipts: [Receipt(part, "completed", now_us, "vandal-sub", "0.5", 1)],
        topics.audit: [AuditRecord("a", now_us, VANDAL, "replay", {"a": "b"}, before='{"a":1}')],
        # In another currency and of another age: however it is damaged, no call of ours is priced by it.
        topics.rates: [RateCard("vandal", 9_999 * 365 * 86_400_000_000, currency="XXX", entries=(Entry("m"),))],
        topics.deliveries: [DeliveryAttempt(now_us, "out", "events.batch", 200, 5, events=1, first=part)],
    }
