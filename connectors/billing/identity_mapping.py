"""Mapping by identity: usage that names a customer of Lago's is paid by that customer (docs/mapping.md, ADR 0026).

Only a LiteLLM customer without a record is mapped this way. A customer that was ever mapped, deactivated or deleted
stays as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
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

#: The tenant of a mapping that a request to us, or we ourselves, made from a customer's own id.
TENANT: Final = "lago"
#: Plan of a mapping where none is named; see `MappingRequest`.
PLAN: Final = "ai_basic"
#: Names that Lago is asked about in one round and at the same time, and the pause between rounds, seconds: at most 25
#: names a second.
_ROUND, _AT_ONCE, _EVERY_S = 50, 4, 2.0
#: How long Lago's answer "no such customer" is used, seconds: at first, and at most; it doubles each time. Number of
#: names that are remembered.
_FIRST_S, _LONGEST_S, _MOST = 30.0, 900.0, 100_000

_log = structlog.get_logger(__name__)

Announce = Callable[[Known, Known], Awaitable[None]]


class Identities(Protocol):
    """The mappings of LiteLLM customers whose id is also the id of a customer in Lago."""

    async def of(self, external_id: str) -> MappingResult | None:
        """The mapping of the LiteLLM customer with this id, to any org; None = there is none. Raises: Unavailable."""

    async def write(self, external_id: str, plan: str, announce: Announce) -> MappingResult | None:
        """Map the LiteLLM customer with this id to Lago's customer, unless it has a record. A repeat changes nothing.

        Args:
            plan: billing plan of the mapping; `""` = `PLAN`.
            announce: called before the change has any effect.

        Raises:
            Unavailable: Kafka does not answer; repeating is safe.
        """


async def silently(_before: Known, _after: Known) -> None:
    """An `Announce` for changes without a request: the log and a metric show them."""


class IdentityMappings:
    """`Identities` in the customers topic."""

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
    """`Identities` of a further Lago organisation: no customer is mapped by its id."""

    async def of(self, external_id: str) -> MappingResult | None:  # noqa: ARG002  # the protocol's
        """See `Identities`."""
        return None

    async def write(self, external_id: str, plan: str, announce: Announce) -> MappingResult | None:  # noqa: ARG002
        """See `Identities`."""
        return None


def identity_of(external_id: str, plan: str = "") -> MappingRequest | None:
    """The mapping of an id to the same id; None for an id that no call can have, or that means "no customer"."""
    name = normalise_customer_id(external_id)
    if name is None or name.startswith(UNATTRIBUTED):
        return None
    return MappingRequest(name, external_id, TENANT, plan or PLAN)


class IdentityMapper:
    """`MAP_BY_IDENTITY`: asks Lago about customers with held usage and no mapping, and maps those that Lago has.

    It runs beside the meter, which never waits for it. A mapping that it writes releases held usage as any mapping does.

    Args:
        unmapped: returns the customers that have held usage and no mapping now.
        customer: returns Lago's customer with exactly this id; None = there is none.
        count: counts an outcome, one of `IDENTITY_OUTCOMES`.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        unmapped: Callable[[], Iterable[str]],
        customer: Callable[[str], Awaitable[Customer | None]],
        identities: Identities,
        count: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._unmapped = unmapped
        self._customer = customer
        self._identities = identities
        self._count = count
        self._clock = clock
        #: By name: the time of the next question, and the length of the wait before it, seconds.
        self._unknown: dict[str, tuple[float, float]] = {}
        self._away = False

    async def work(self, every_s: float = _EVERY_S) -> None:
        """Run rounds until the task is cancelled, with a pause of `every_s` seconds after each."""
        while True:
            await self.look()
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """One round: ask about at most `_ROUND` names. An error of Lago or Kafka ends the round; the next one goes on."""
        now = self._clock()
        due = (name for name in self._unmapped() if self._unknown.get(name, (now, 0.0))[0] <= now)
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
        """Map the name if Lago has such a customer. Returns the error if that is not known."""
        try:
            mapping = identity_of(name)
            customer = await self._customer(name) if mapping is not None else None
            if mapping is not None and customer is not None:
                mapped = await self._identities.write(name, "", silently)
                if mapped is not None and mapped.created:
                    _log.info("mapped_by_identity", org=name)
        except LagoRejected:
            customer = None  # Lago refuses such an id, so no customer has it
        except MeterbridgeError as error:
            self._count(LOOKUP_FAILED)
            return error
        self._count(NO_CUSTOMER if customer is None else CUSTOMER)
        self._later(name)
        return None

    def _later(self, name: str) -> None:
        """Set when to ask again. Also for a mapped name: its usage is held until the meter has read the mapping."""
        _, waited_s = self._unknown.pop(name, (0.0, 0.0))
        wait_s = min(max(2 * waited_s, _FIRST_S), _LONGEST_S)
        self._unknown[name] = self._clock() + wait_s, wait_s
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
