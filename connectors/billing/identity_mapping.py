"""Mapping by identity: if a LiteLLM customer has the same id as a Lago customer, that Lago customer pays
(docs/mapping.md, ADR 0026).

Only a LiteLLM customer without a record is mapped this way. A customer that was mapped, deactivated or deleted before
is not changed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

import structlog

from connectors.billing.mappings import Known, MappingResult, Mappings
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import Customer
from schemas.customer_id import UNATTRIBUTED, normalise_customer_id
from schemas.customers import CustomerRecord
from schemas.errors import MeterbridgeError, Rejected
from schemas.reasons import CUSTOMER, LOOKUP_FAILED, NO_CUSTOMER
from streams.core.mapping.set_mapping import MappingRequest

#: The tenant of a mapping from an id to the same id, made by a request or by Meterbridge itself.
TENANT: Final = "lago"
#: The plan of a mapping that names none, see `MappingRequest`.
PLAN: Final = "ai_basic"
#: Number of ids in one round, number of concurrent requests, and the pause between rounds, seconds: at most 25 ids a
#: second.
_ROUND, _AT_ONCE, _EVERY_S = 50, 4, 2.0
#: How long Lago's answer "no such customer" is used, seconds: the first time and the maximum; it doubles each time.
#: Then the number of ids that are remembered.
_FIRST_S, _LONGEST_S, _MOST = 30.0, 900.0, 100_000

_log = structlog.get_logger(__name__)

Announce = Callable[[Known, Known], Awaitable[None]]


class Identities(Protocol):
    """Reads and writes the mappings of LiteLLM customers whose id is also the id of a customer in Lago."""

    async def of(self, external_id: str) -> MappingResult | None:
        """Return the mapping of the LiteLLM customer with this id, to any org; None = there is none. Raises:
        Unavailable.
        """

    async def write(self, external_id: str, plan: str, announce: Announce) -> MappingResult | None:
        """Map the LiteLLM customer with this id to the Lago customer with the same id, unless it has a record. A repeat
        changes nothing.

        Args:
            plan: billing plan of the mapping; `""` = `PLAN`.
            announce: called before the change has any effect.

        Raises:
            Unavailable: Kafka does not answer; repeating is safe.
        """


async def silently(_before: Known, _after: Known) -> None:
    """Announce nothing: an `Announce` for changes without a request. The log and a metric show such changes."""


class IdentityMappings:
    """Implements `Identities` with the customers topic."""

    def __init__(self, mappings: Mappings) -> None:
        self._mappings = mappings

    async def of(self, external_id: str) -> MappingResult | None:
        """See `Identities`."""
        name = normalise_customer_id(external_id)
        return None if name is None else await self._mappings.get(name)

    async def write(self, external_id: str, plan: str, announce: Announce) -> MappingResult | None:
        """See `Identities`."""
        mapping = identity_of(external_id, plan)
        if mapping is None:
            return None
        if await self._mappings.record(mapping.litellm_customer_id) is None:
            try:
                return await self._mappings.put(mapping, _FirstAlone(announce))
            except _AlreadyKnown:
                pass  # another process stored a mapping meanwhile; it is read below
        return await self._mappings.get(mapping.litellm_customer_id)


class NoIdentities:
    """`Identities` for a further Lago organisation, in which no customer is mapped by its id."""

    async def of(self, external_id: str) -> MappingResult | None:  # noqa: ARG002  # the protocol's
        """See `Identities`."""
        return None

    async def write(self, external_id: str, plan: str, announce: Announce) -> MappingResult | None:  # noqa: ARG002
        """See `Identities`."""
        return None


def identity_of(external_id: str, plan: str = "") -> MappingRequest | None:
    """Return the mapping of an id to the same id; None for an id that no call can have, or that means "no customer"."""
    name = normalise_customer_id(external_id)
    if name is None or name.startswith(UNATTRIBUTED):
        return None
    return MappingRequest(name, external_id, TENANT, plan or PLAN)


@dataclass(slots=True)
class IdentityMapper:
    """Implements `MAP_BY_IDENTITY`: asks Lago about customers with held usage and no mapping, and maps those that Lago
    has.

    It runs beside the meter, which never waits for it. Its mappings release held usage like any other mapping.

    Args:
        unmapped: returns the customers with held usage and without a mapping.
        customer: returns the Lago customer with exactly this id; None = there is none.
        count: counts an outcome, one of `IDENTITY_OUTCOMES`.
        clock: monotonic, seconds.
    """

    unmapped: Callable[[], Iterable[str]]
    customer: Callable[[str], Awaitable[Customer | None]]
    identities: Identities
    count: Callable[[str], None]
    clock: Callable[[], float]
    #: For each id: the time of the next request to Lago, and the wait before it, seconds.
    _unknown: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)
    _away: bool = field(default=False, init=False)

    async def work(self, every_s: float = _EVERY_S) -> None:
        """Run rounds until the task is cancelled, with a pause of `every_s` seconds after each."""
        while True:
            await self.look()
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Run one round, which asks about at most `_ROUND` ids. An error of Lago or Kafka ends the round; the next one
        continues.
        """
        now = self.clock()
        due = (name for name in self.unmapped() if self._unknown.get(name, (now, 0.0))[0] <= now)
        names = list(islice(dict.fromkeys(due), _ROUND))
        for start in range(0, len(names), _AT_ONCE):
            failures = await asyncio.gather(*map(self._see_to, names[start : start + _AT_ONCE]))
            error = next((failure for failure in failures if failure is not None), None)
            if error is not None:
                if not self._away:
                    _log.warning("identities_not_asked", reason=error.reason, detail=error.detail)
                self._away = True
                return
        if names:
            self._away = False

    async def _see_to(self, name: str) -> MeterbridgeError | None:
        """Map the id if Lago has such a customer; return the error if Lago's answer failed."""
        try:
            mapping = identity_of(name)
            customer = await self.customer(name) if mapping is not None else None
            if mapping is not None and customer is not None:
                mapped = await self.identities.write(name, "", silently)
                if mapped is not None and mapped.created:
                    _log.info("mapped_by_identity", org=name)
        except LagoRejected:
            customer = None  # Lago refuses such an id, so no customer has it
        except MeterbridgeError as error:
            self.count(LOOKUP_FAILED)
            return error
        self.count(NO_CUSTOMER if customer is None else CUSTOMER)
        self._later(name)
        return None

    def _later(self, name: str) -> None:
        """Set the time of the next request. A mapped id needs it, too: its usage is held until the meter has read the
        mapping.
        """
        _, waited_s = self._unknown.pop(name, (0.0, 0.0))
        wait_s = min(max(2 * waited_s, _FIRST_S), _LONGEST_S)
        self._unknown[name] = self.clock() + wait_s, wait_s
        while len(self._unknown) > _MOST:
            del self._unknown[next(iter(self._unknown))]


class _AlreadyKnown(Rejected):
    """The LiteLLM customer has a record."""


class _FirstAlone:
    """A `MappingGuard` that allows only the first mapping of a customer."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce

    def admits(self, customer_id: str, known: Known) -> None:
        """See `MappingGuard`."""

    def allows(self, before: Known, after: CustomerRecord) -> None:  # noqa: ARG002  # the protocol's
        """Raises: _AlreadyKnown."""
        if before is not None:
            raise _AlreadyKnown("already_mapped")

    async def changing(self, before: Known, after: Known) -> None:
        """See `MappingGuard`."""
        await self._announce(before, after)
