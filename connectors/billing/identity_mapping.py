"""Mapping by identity: usage that names a customer of Lago's is paid by that customer (docs/mapping.md, ADR 0026).

Only a LiteLLM customer that nothing is known of is mapped so: whoever was mapped, deactivated or deleted stays as he is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import Final, Protocol

import structlog

from connectors.billing.mappings import Known, MappingResult, Mappings
from connectors.lago.errors import LagoRejected
from connectors.lago.response_types import Customer
from schemas.customer_id import UNATTRIBUTED, normalise_customer_id
from schemas.customers import CustomerRecord
from schemas.errors import MeterbridgeError, Rejected
from schemas.reasons import CUSTOMER, LOOKUP_FAILED, NO_CUSTOMER
from streams.core.mapping.set_mapping import MappingRequest

#: The tenant of a mapping that a request to us, or we ourselves, made from a customer's own id.
TENANT: Final = "lago"
#: Plan of a mapping where none is named; see `MappingRequest`.
PLAN: Final = "ai_basic"
#: Customers asked about in one round, and at once; so Lago hears of at most 25 unknown names a second.
_ROUND, _AT_ONCE, _EVERY_S = 50, 4, 2.0
#: How long Lago's "no such customer" is believed: this at first, doubled up to the second. Names remembered so.
_FIRST_S, _LONGEST_S, _MOST = 30.0, 900.0, 100_000

_log = structlog.get_logger(__name__)

Announce = Callable[[Known, Known], Awaitable[None]]


class Identities(Protocol):
    """The mappings of LiteLLM customers that have the id of a customer of Lago's."""

    async def of(self, external_id: str) -> MappingResult | None:
        """The mapping of the LiteLLM customer with this id, whoever pays; None without one. Raises: Unavailable."""

    async def write(self, external_id: str, plan: str, announce: Announce) -> MappingResult | None:
        """Let the customer pay for usage that names it, unless something is known of that LiteLLM customer already.

        The same twice is the same once. Args: announce: told of the change before it has any effect.

        Raises:
            Unavailable: not now; repeating is safe.
        """


async def silently(_before: Known, _after: Known) -> None:
    """An `Announce` for changes that nobody asked for: the log and a metric tell of them."""


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
        wanted = identity_of(external_id, plan)
        if wanted is None:
            return None
        if await self._mappings.record(wanted.litellm_customer_id) is None:
            try:
                return await self._mappings.put(wanted, _FirstAlone(announce))
            except _AlreadyKnown:
                pass  # another process stored a mapping meanwhile: that one is read below
        return await self._mappings.get(wanted.litellm_customer_id)


def identity_of(external_id: str, plan: str = "") -> MappingRequest | None:
    """The mapping of an id onto itself; None for an id that no call can have, or that stands for nobody."""
    name = normalise_customer_id(external_id)
    if name is None or name.startswith(UNATTRIBUTED):
        return None
    return MappingRequest(name, external_id, TENANT, plan or PLAN)


class IdentityMapper:
    """`MAP_BY_IDENTITY`: asks Lago about held names without a mapping, and maps those that are its customers.

    It works beside the meter, which never waits for it: what it writes releases what is held, as any mapping does.

    Args:
        unmapped: names of held usage that has no mapping, now.
        customer: Lago's customer of this very id; None where there is none.
        told: counts an outcome, one of `IDENTITY_OUTCOMES`.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        unmapped: Callable[[], Iterable[str]],
        customer: Callable[[str], Awaitable[Customer | None]],
        identities: Identities,
        told: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._unmapped = unmapped
        self._customer = customer
        self._identities = identities
        self._told = told
        self._clock = clock
        #: When a name may be asked about again, and how long it waits after that.
        self._unknown: dict[str, tuple[float, float]] = {}
        self._away = False

    async def work(self, every_s: float = _EVERY_S) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """One round: at most `_ROUND` names; a Lago or a Kafka that is away ends it, and is asked again next time."""
        now = self._clock()
        due = (name for name in self._unmapped() if self._unknown.get(name, (now, 0.0))[0] <= now)
        names = list(islice(dict.fromkeys(due), _ROUND))
        for start in range(0, len(names), _AT_ONCE):
            failures = await asyncio.gather(*map(self._see_to, names[start : start + _AT_ONCE]))
            error = next((one for one in failures if one is not None), None)
            if error is not None:
                if not self._away:
                    _log.warning("identities_not_asked", reason=error.reason, detail=error.detail)
                self._away = True
                return
        if names:
            self._away = False

    async def _see_to(self, name: str) -> MeterbridgeError | None:
        """Map the name if it is a customer; the error where it is not known."""
        try:
            wanted = identity_of(name)
            found = await self._customer(name) if wanted is not None else None
            if wanted is not None and found is not None:
                mapped = await self._identities.write(name, "", silently)
                if mapped is not None and mapped.created:
                    _log.info("mapped_by_identity", org=name)
        except LagoRejected:
            found = None  # no id that Lago could have
        except MeterbridgeError as error:
            self._told(LOOKUP_FAILED)
            return error
        self._told(NO_CUSTOMER if found is None else CUSTOMER)
        self._later(name)
        return None

    def _later(self, name: str) -> None:
        """Also for one that was mapped: its usage is held until the meter has read of the mapping."""
        _, waited_s = self._unknown.pop(name, (0.0, 0.0))
        wait_s = min(max(2 * waited_s, _FIRST_S), _LONGEST_S)
        self._unknown[name] = self._clock() + wait_s, wait_s
        while len(self._unknown) > _MOST:
            del self._unknown[next(iter(self._unknown))]


class _AlreadyKnown(Rejected):
    """Something is known of the LiteLLM customer."""


class _FirstAlone:
    """`MappingGuard` that lets nothing but a first mapping be written."""

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
