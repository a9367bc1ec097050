"""Calls from elsewhere are billed unless they were: each is looked for in the usage log, and only what is not there is sent.

A call that is on its way by webhook at the same moment is known by its identity, or by its neighbours' milliseconds
(streams/core/normalise.py), for as long as the ledgers remember; what was counted before is in the log.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from connectors.http.ingress.bodies import Wrapped
from connectors.http.ingress.context import Kept
from connectors.http.ingress.rejections import Refused
from connectors.http.ingress.strip import strip
from connectors.operations.letters import usage_of
from connectors.operations.replay import Amount
from connectors.operations.requeue import checked
from connectors.operations.sending import Outgoing, Sender
from connectors.operations.usage_log import Checked, caught_up, forgotten, known
from connectors.postgres.pool import Database
from connectors.settings import Settings
from schemas.moments import HOUR_US, to_iso
from schemas.money import quantum
from schemas.topics import TopicNames
from schemas.usage import Usage
from schemas.wire import BACKFILL
from streams.core.vetting import NOT_A_CALL

BATCH = 500
#: The usage log does not know any more whether a call was counted: its month was pruned.
FORGOTTEN = "log_forgotten"
#: How long a check of the whole log vouches for: far less than the ledgers' memory.
_CHECK_AGAIN_S = 3600.0


@dataclass(slots=True)
class Filled:
    """What became of the elements; amounts by LiteLLM customer id are of what was missing.

    Fields:
        read: elements there were.
        known: counted already, or twice among the elements.
        missing: sent, or in a dry run to be sent.
        hours: the same by the hour the calls started in, ISO 8601 UTC.
        refused: elements by reason; `where` the first few of them.
    """

    read: int = 0
    known: int = 0
    missing: dict[str, Amount] = field(default_factory=dict)
    hours: dict[str, "Hour"] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    where: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Hour:
    """Calls that started within one hour: those that were counted, and those that were not."""

    known: int = 0
    missing: Amount = field(default_factory=Amount)


@dataclass(frozen=True, slots=True)
class _Found:
    place: str
    key: bytes
    value: bytes
    usage: Usage


class Backfill:
    """One backfill; `sender` None is a dry run: all is read and compared, nothing sent.

    Args:
        patience_s: how long the meter and the projector may take to come to what is there.
    """

    def __init__(
        self, settings: Settings, database: Database, sender: Sender | None, shape: str, patience_s: float = 60.0
    ) -> None:
        self.done = Filled()
        self._settings = settings
        self.database = database
        self.sender = sender
        self._shape = shape
        self._patience_s = patience_s
        self._raw = TopicNames.with_prefix(settings.topic_prefix).raw
        self._unit = quantum(settings.cost_decimals)
        self._kept = Kept(settings.kept_tag_prefixes, settings.kept_metadata)
        self._seen: set[bytes] = set()
        self._checked: Checked | None = None
        self._checked_until = 0.0

    async def run(
        self,
        elements: AsyncIterator[tuple[str, bytes]],
        stored: Callable[[str, int], None] = lambda _place, _count: None,
    ) -> Filled:
        """Take every (place, element) in; `stored` hears the place up to which all is durable, and how many more.

        Raises:
            Unavailable: `log_behind`, or a neighbour went away; what was sent stays sent, and a repeat knows it.
        """
        batch: list[_Found] = []
        place, count = "", 0
        async for place, element in elements:
            count += 1
            found = self._read(place, element)
            if found is not None:
                batch.append(found)
            if count == BATCH:
                await self._keep(batch)
                stored(place, count)
                batch, count = [], 0
        await self._keep(batch)
        stored(place, count)
        return self.done

    def _read(self, place: str, element: bytes) -> _Found | None:
        done = self.done
        done.read += 1
        try:
            stripped = strip(
                element, self._shape, time.time_ns() // 1000, self._settings.customer_id_fields, BACKFILL, self._kept
            )
        except Refused as refused:
            self._refuse(place, refused.reason)
            return None
        except Wrapped:
            self._refuse(place, NOT_A_CALL)
            return None
        key, value = stripped if stripped is not None else ("", b"")
        usage = usage_of(value, key, self._unit)
        if usage is None:
            self._refuse(place, "unreadable")
            return None
        if usage.identity in self._seen:
            done.known += 1
            return None
        self._seen.add(usage.identity)
        return _Found(place, key.encode(), value, usage)

    def _refuse(self, place: str, reason: str) -> None:
        done = self.done
        done.refused[reason] = done.refused.get(reason, 0) + 1
        if len(done.where) < 20:
            done.where.append(f"{place}: {reason}")

    async def _keep(self, batch: list[_Found]) -> None:
        if not batch:
            return
        if self._checked is None or time.monotonic() >= self._checked_until:
            self._checked = await caught_up(self._settings, self.database, self._patience_s)
            self._checked_until = time.monotonic() + _CHECK_AGAIN_S
        batch, counted = await self._counted(batch, self._checked)
        missing = [found for number, found in enumerate(batch) if number not in counted]
        if self.sender is not None:
            records = [Outgoing(self._raw, found.key, checked(found.value, self._checked.at_us)) for found in missing]
            await asyncio.to_thread(self.sender.send, records)
        self.done.known += len(counted)
        for number, found in enumerate(batch):
            usage = found.usage
            hour = self.done.hours.setdefault(to_iso(usage.start_us - usage.start_us % HOUR_US)[:16] + "Z", Hour())
            if number in counted:
                hour.known += 1
            else:
                hour.missing.count(usage.total_tokens, usage.cost)
                self.done.missing.setdefault(usage.customer_id, Amount()).count(usage.total_tokens, usage.cost)

    async def _counted(self, batch: list[_Found], checked: Checked) -> tuple[list[_Found], set[int]]:
        """What can be judged, and which of it, by index, is counted; what the log has forgotten is refused."""
        usages = [found.usage for found in batch]
        counted = await known(self.database, usages, checked)
        unknowable = await forgotten(self.database, usages) - counted
        for number in sorted(unknowable):
            self._refuse(batch[number].place, FORGOTTEN)
        judged = [number for number in range(len(batch)) if number not in unknowable]
        return [batch[number] for number in judged], {place for place, number in enumerate(judged) if number in counted}
