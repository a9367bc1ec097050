"""What the management API writes into `billing.audit`: every change before it is made, and attempts that were refused.

Anybody can be refused as often as they like, and the log is kept for 400 days: of one source a few lines a minute
are written, of all a few more, and how many were left out is one line.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import structlog

from connectors.access.audit_chain import ChainPosition, sealed
from connectors.telemetry.logs import redact
from schemas.errors import MeterbridgeError
from schemas.records import AuditRecord

#: Lines of refused attempts a minute: of one source, and of all; sources that are told apart.
OF_ONE, OF_ALL, SOURCES = 10, 200, 1000
#: Lines that wait while Kafka is away.
MOST_WAITING: Final = 2000
MINUTE_S: Final = 60.0
#: Of `before` and `after` each; larger ones are told by their length.
MAX_VALUE: Final = 64 << 10
_WRITE_S: Final = 1.0
REFUSED: Final = "access.refused"
#: The name of all sources beyond `SOURCES`; how many sources are named in the line that counts.
_MORE, _WORST = "others", 20

_log = structlog.get_logger(__name__)


class AuditWriter(Protocol):
    """Where a line becomes durable."""

    async def send_one(self, record: tuple[str, str | None, bytes, int]) -> tuple[int, int]:
        """Raises: Rejected, Unavailable."""


class Attempt(NamedTuple):
    """Who asked for what: a line's fields of these names."""

    actor: str
    action: str
    target: dict[str, str]
    address: str
    request_id: str


@dataclass(slots=True)
class _Minute:
    """Attempts since `began`: how many will have a line, and by source how many came and how many will not."""

    began: float
    lines: int = 0
    came: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


class Audit:
    """The audit log of one process.

    Args:
        monotonic: seconds.
        now_us: microseconds since 1970 UTC.
        tip: what the next line follows; raises Unavailable.
    """

    def __init__(
        self,
        writer: AuditWriter,
        topic: str,
        monotonic: Callable[[], float],
        now_us: Callable[[], int],
        tip: Callable[[], Awaitable[ChainPosition]],
    ) -> None:
        self._writer = writer
        self._topic = topic
        self._monotonic = monotonic
        self._now_us = now_us
        self._tip = tip
        self._minute = _Minute(monotonic())
        self._waiting: list[AuditRecord] = []

    async def changing(self, attempt: Attempt, before: Any, after: Any) -> None:
        """Durable on return. Raises: Unavailable, Rejected."""
        await self._write(self._line(attempt, before=_told(before), after=_told(after)))

    def refused(self, attempt: Attempt, reason: str) -> None:
        """Written within seconds, unless there are too many; never waits."""
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
        """Write what was refused, for ever."""
        while True:
            await asyncio.sleep(_WRITE_S)
            await self.write_waiting()

    async def write_waiting(self) -> None:
        """Write what waits; what cannot be written now waits on."""
        self._turn_minute()
        while self._waiting:
            try:
                await self._write(self._waiting[0])
            except MeterbridgeError as error:
                _log.warning("refusals_unwritten", reason=error.reason, waiting=len(self._waiting))
                return
            del self._waiting[0]

    async def _write(self, line: AuditRecord) -> None:
        await self._writer.send_one((self._topic, line.audit_id, sealed(line, await self._tip()), line.at // 1000))

    def _turn_minute(self) -> None:
        now = self._monotonic()
        if now - self._minute.began < MINUTE_S:
            return
        left_out, self._minute = self._minute.left_out, _Minute(now)
        if left_out:
            worst = sorted(left_out, key=lambda source: -left_out[source])[:_WORST]
            told = {source: str(left_out[source]) for source in worst}
            self._waiting.append(
                self._line(Attempt("", REFUSED, told, "", ""), reason="left_out", count=sum(left_out.values()))
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


def _told(value: Any) -> str:
    """As JSON text, secrets masked as in logs."""
    if value is None:
        return ""
    plain = redact(None, "", {"value": msgspec.to_builtins(value)})["value"]
    text = msgspec.json.encode(plain).decode()
    return text if len(text) <= MAX_VALUE else msgspec.json.encode({"characters_left_out": len(text)}).decode()
