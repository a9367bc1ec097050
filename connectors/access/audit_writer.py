"""Writes the audit lines of the management API: every change before it takes effect, and refused attempts.

A refused attempt costs its caller nothing, and the log is kept for 400 days. So the lines per minute are limited, for
each source and in total. One line contains the number of omitted attempts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from connectors.access.audit_chain import ChainHead, sealed
from connectors.kafka.producer import RecordWriter
from connectors.telemetry.logs import redact
from schemas.errors import MeterbridgeError
from schemas.records import AuditRecord

#: Lines per minute for refused attempts of one source, and of all sources; how many sources are counted separately.
OF_ONE, OF_ALL, SOURCES = 10, 200, 1000
#: The maximum number of lines that wait while Kafka does not answer.
MOST_WAITING: Final = 2000
MINUTE_S: Final = 60.0
#: Characters of `before` and of `after`; of a larger value only the length is written.
MAX_VALUE: Final = 64 << 10
_WRITE_S: Final = 1.0
REFUSED: Final = "access.refused"
#: The common name of all sources beyond `SOURCES`; the number of sources in the line about omitted attempts.
_MORE, _WORST = "others", 20

_log = structlog.get_logger(__name__)


class Attempt(NamedTuple):
    """The caller and the request of an attempt: the fields of an audit line with the same names."""

    actor: str
    action: str
    target: dict[str, str]
    address: str
    request_id: str


@dataclass(slots=True)
class _Minute:
    """Refused attempts since `began`: the number of lines, and for each source the number of attempts and of omitted
    attempts.
    """

    began: float
    lines: int = 0
    came: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


class Audit:
    """The audit log of one process.

    Args:
        monotonic: seconds.
        now_us: microseconds since 1970 UTC.
        chain_head: the position in the hash chain that the next line follows; raises Unavailable.
    """

    def __init__(
        self,
        writer: RecordWriter,
        topic: str,
        monotonic: Callable[[], float],
        now_us: Callable[[], int],
        chain_head: Callable[[], Awaitable[ChainHead]],
    ) -> None:
        self._writer = writer
        self._topic = topic
        self._monotonic = monotonic
        self._now_us = now_us
        self._chain_head = chain_head
        self._minute = _Minute(monotonic())
        self._waiting: list[AuditRecord] = []

    async def changing(self, attempt: Attempt, before: Any, after: Any) -> None:
        """Write the line of a change; it is durable on return. Raises: Unavailable, Rejected."""
        await self._write(self._line(attempt, before=_as_text(before), after=_as_text(after)))

    async def counted(self, attempt: Attempt, count: int) -> None:
        """Write a line about something that happened `count` times; it is durable on return. Raises: Unavailable, Rejected."""
        await self._write(self._line(attempt, count=count))

    def refused(self, attempt: Attempt, reason: str) -> None:
        """Queue the line of a refused attempt, unless there are too many. `keep_writing` writes it within seconds."""
        self._turn_minute()
        minute = self._minute
        source = attempt.address if attempt.address in minute.came or len(minute.came) < SOURCES else _MORE
        minute.came[source] = minute.came.get(source, 0) + 1
        if minute.came[source] > OF_ONE or minute.lines >= OF_ALL or len(self._waiting) >= MOST_WAITING:
            minute.left_out[source] = minute.left_out.get(source, 0) + 1
            return
        minute.lines += 1
        request = attempt._replace(action=REFUSED, target={"request": attempt.action, **attempt.target})
        self._waiting.append(self._line(request, reason=reason, count=1))

    async def keep_writing(self) -> None:
        """Write the queued lines until the task is cancelled."""
        while True:
            await asyncio.sleep(_WRITE_S)
            await self.write_waiting()

    async def write_waiting(self) -> None:
        """Write the queued lines; a line that cannot be written now stays queued."""
        self._turn_minute()
        while self._waiting:
            try:
                await self._write(self._waiting[0])
            except MeterbridgeError as error:
                _log.warning("refusals_unwritten", reason=error.reason, waiting=len(self._waiting))
                return
            del self._waiting[0]

    async def _write(self, line: AuditRecord) -> None:
        await self._writer.send_one(
            (self._topic, line.audit_id, sealed(line, await self._chain_head()), line.at // 1000)
        )

    def _turn_minute(self) -> None:
        now = self._monotonic()
        if now - self._minute.began < MINUTE_S:
            return
        left_out, self._minute = self._minute.left_out, _Minute(now)
        if left_out:
            worst = sorted(left_out, key=lambda source: -left_out[source])[:_WORST]
            counts = {source: str(left_out[source]) for source in worst}
            self._waiting.append(
                self._line(Attempt("", REFUSED, counts, "", ""), reason="left_out", count=sum(left_out.values()))
            )

    def _line(self, of: Attempt, **more: Any) -> AuditRecord:
        return AuditRecord(
            token_hex(8),
            self._now_us(),
            of.actor,
            of.action,
            of.target,
            address=of.address,
            request_id=of.request_id,
            **more,
        )


def _as_text(value: Any) -> str:
    """Return a value as JSON text, with secrets masked as in logs."""
    if value is None:
        return ""
    plain = redact(None, "", {"value": msgspec.to_builtins(value)})["value"]
    text = msgspec.json.encode(plain).decode()
    return text if len(text) <= MAX_VALUE else msgspec.json.encode({"characters_left_out": len(text)}).decode()
