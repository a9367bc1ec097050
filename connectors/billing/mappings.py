"""Who pays: customer mappings, read from this process's view and changed in their compacted topic.

The topic is the truth and the followers the view: a write is answered once this process's own view holds it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.kafka.compacted_writer import CompactedTopicWriter
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord
from schemas.errors import Rejected, Unavailable
from schemas.moments import to_iso
from streams.core.mapping.resolve import Target, resolve
from streams.core.mapping.set_mapping import (
    EndMappingRequest,
    MappingRequest,
    corrected_by,
    in_force,
    remap,
    shown,
    soonest,
    takes_effect,
    unmap,
)
from streams.core.mapping.subscription_choice import NO_SUBSCRIPTION
from streams.runtime.compacted_table import CompactedTable

#: How long the view may take to be complete, seconds.
_VIEW_S = 10.0

_log = structlog.get_logger(__name__)

Known = CustomerRecord | None


@dataclass(frozen=True, slots=True)
class MappingResult:
    """A customer's record, the version that was asked for, and where usage goes under it.

    Fields:
        corrected: the version whose place it took, from that one's beginning on; None where it took none's.
    """

    record: CustomerRecord
    version: MappingVersion
    target: Target
    created: bool = False
    changed: bool = False
    corrected: MappingVersion | None = None


class MappingGuard(Protocol):
    """What stands between a request and its effect."""

    def admits(self, customer_id: str, known: Known) -> None:
        """Before anything is asked of Lago or written, so that the time of a refusal tells nothing.

        Raises: MeterbridgeError: this customer is not theirs to change.
        """

    def allows(self, before: Known, after: CustomerRecord) -> None:
        """Raises: MeterbridgeError: this change is not to be made; `before` = `after`: it is made already."""

    async def changing(self, before: Known, after: Known) -> None:
        """The change is about to be made. Raises: Unavailable: it must not."""


class NoGuard:
    """Everything may be done, and nobody is told."""

    def admits(self, customer_id: str, known: Known) -> None:
        """See `MappingGuard`."""

    def allows(self, before: Known, after: CustomerRecord) -> None:
        """See `MappingGuard`."""

    async def changing(self, before: Known, after: Known) -> None:
        """See `MappingGuard`."""


class Mappings:
    """The customer mappings of one deployment.

    Args:
        lead_us: `MAPPING_LEAD_SECONDS`; `keep_us`: see `remap`.
        now_us: microseconds since 1970 UTC.
        event_code: the metric that a subscription has to charge.
    """

    def __init__(
        self,
        customers: CompactedTable[CustomerRecord],
        orgs: CompactedTable[OrgRecord],
        records: CompactedTopicWriter[CustomerRecord],
        learner: SubscriptionDiscovery,
        *,
        lead_us: int,
        keep_us: int,
        now_us: Callable[[], int],
        event_code: str = "",
    ) -> None:
        self._customers = customers
        self._orgs = orgs
        self._records = records
        self._learner = learner
        self._lead_us = lead_us
        self._keep_us = keep_us
        self._now_us = now_us
        self._event_code = event_code

    async def get(self, customer_id: str) -> MappingResult | None:
        """The customer's record and the version to show now. Raises: Unavailable `view_incomplete`."""
        await self.ready()
        return self.mapped(customer_id)

    def mapped(
        self, customer_id: str, wanted: Callable[[MappingVersion], bool] = lambda _: True
    ) -> MappingResult | None:
        """The same of a view that is `ready`; None also where the version is not `wanted`."""
        record = self._customers.table.get(customer_id)
        version = None if record is None else shown(record.versions, self._now_us())
        if record is None or version is None or not wanted(version):
            return None
        return self._mapped(record, version)

    async def record(self, customer_id: str) -> CustomerRecord | None:
        """All that is known of a customer, also of one nobody is mapped to any more. Raises: as `get`."""
        await self.ready()
        return self._customers.table.get(customer_id)

    def payers(self, record: CustomerRecord) -> set[str]:
        """The orgs that pay from now on; empty where nobody is mapped."""
        return {version.lago_customer_id for version in self.paying(record)}

    def paying(self, record: CustomerRecord) -> list[MappingVersion]:
        """The versions by which somebody pays from now on."""
        version = shown(record.versions, self._now_us())
        return [
            other
            for other in record.versions
            if version is not None and other.effective_from >= version.effective_from and not other.deleted
        ]

    def is_subscription_of(self, org_id: str, external_id: str) -> bool:
        """Whether the org's record knows this subscription as the org's own."""
        org = self._orgs.table.get(org_id)
        return org is not None and external_id in {org.subscription_id, *(one.external_id for one in org.periods)}

    def active_customers(self) -> int:
        """Customers whose version in force is active."""
        now_us = self._now_us()
        return sum(in_force(record.versions, now_us).is_active for record in self._customers.table.values())

    async def put(
        self, request: MappingRequest, guard: MappingGuard | None = None, *, ask_lago: bool = True
    ) -> MappingResult:
        """Map a customer; `get` shows it on return. The same twice is the same once.

        Args:
            ask_lago: about a subscription that is not known, while the caller waits; else the learner will. And about
                the org that was mapped before: a mapping to one that nobody knows was a mistake, and is corrected.

        Raises:
            Rejected: see `remap`; what `guard` raises.
            Unavailable: Kafka does not take the record now, or the view does not follow; repeating is safe.
        """
        await self.ready()
        self.check(request.litellm_customer_id, guard := guard or NoGuard())
        org_id = request.lago_customer_id
        if ask_lago and not self._learner.knows(org_id, request.external_subscription_id):
            named = request.external_subscription_id
            await self._learner.learn(org_id, [named] if named else ())
        unknown = await self._unknown(request) if ask_lago and request.correct is None else frozenset[str]()
        wrong: MappingVersion | None = None

        def make(known: Known, now_us: int) -> CustomerRecord:
            nonlocal wrong
            wrong = corrected_by(known, request, now_us, self._lead_us, unknown)
            return remap(known, request, now_us, self._lead_us, self._keep_us, unknown)

        made = await self._change(request.litellm_customer_id, request, make, guard, lambda: wrong)
        self._learner.mapped(made.version)
        return made

    def check(self, customer_id: str, guard: MappingGuard) -> None:
        """Ask the guard whether this customer is theirs to change, of a view that is `ready`. Raises: what it raises."""
        guard.admits(customer_id, self._customers.table.get(customer_id))

    def would(self, request: MappingRequest) -> tuple[Known, CustomerRecord]:
        """The customer's record now, and as `put` would make it now, of a view that is `ready`. Raises: as `remap`."""
        known = self._customers.table.get(request.litellm_customer_id)
        return known, remap(known, request, self._now_us(), self._lead_us, self._keep_us)

    async def end(
        self, customer_id: str, ending: EndMappingRequest, guard: MappingGuard | None = None
    ) -> MappingResult | None:
        """Deactivate or delete a mapping; None where nobody is mapped. Raises: as `put`; see `unmap`."""
        await self.ready()
        self.check(customer_id, guard := guard or NoGuard())
        if (there := await self.get(customer_id)) is None:
            return None

        def made(known: Known, now_us: int) -> CustomerRecord:
            return unmap(known or there.record, ending, now_us, self._lead_us, self._keep_us)

        return await self._change(customer_id, ending, made, guard)

    async def ready(self) -> None:
        """Return once the tables have been read. Raises: Unavailable `view_incomplete`."""
        await _within_view_s(self._customers.wait_fresh(float("inf")))
        await _within_view_s(self._orgs.wait_fresh(float("inf")))

    async def _change(
        self,
        customer_id: str,
        asked: MappingRequest | EndMappingRequest,
        make: Callable[[Known, int], CustomerRecord],
        guard: MappingGuard,
        corrected: Callable[[], MappingVersion | None] = lambda: None,
    ) -> MappingResult:
        """Make the change, of the record as it is at its turn; the lead begins there."""
        before: Known = None
        at_us = 0

        def made(known: Known) -> CustomerRecord:
            nonlocal before, at_us
            now_us = self._now_us()
            before, at_us = known, takes_effect(asked, now_us, self._lead_us, known)
            try:
                after = make(known, now_us)
            except Rejected:
                if known is not None:
                    guard.allows(known, known)  # of another's customer not even what is wrong with the request is told
                raise
            guard.allows(known, after)
            return after

        after = await self._records.change(customer_id, made, guard.changing)
        assert after is not None  # noqa: S101  # `make` deletes nothing
        changed, version = after != before, in_force(after.versions, at_us)
        wrong = corrected() if changed else None
        change = before is not None and wrong is None and after.known_from >= before.known_from
        late = change and self._lead_us and self._now_us() > version.effective_from
        if changed and late:
            _log.warning("mapping_stored_late", effective_from=to_iso(version.effective_from))
        created = before is None or shown(before.versions, self._now_us()) is None
        return replace(self._mapped(after, version), created=created, changed=changed, corrected=wrong)

    async def _unknown(self, request: MappingRequest) -> frozenset[str]:
        """The org that was mapped before, if Lago knows it as little as we do."""
        known = self._customers.table.get(request.litellm_customer_id)
        if known is None:
            return frozenset()
        org_id = in_force(known.versions, soonest(known, self._now_us(), self._lead_us)).lago_customer_id
        other = org_id != request.lago_customer_id
        return frozenset({org_id}) if other and await self._learner.is_nobody(org_id) else frozenset()

    def _mapped(self, record: CustomerRecord, version: MappingVersion) -> MappingResult:
        at_us = max(self._now_us(), version.effective_from)
        if in_force(record.versions, at_us) is not version:  # it is of a time before all that were kept
            at_us = version.effective_from
        target = resolve(record, at_us, version.id_kind, self._orgs.table, self._event_code)
        if target.held == NO_SUBSCRIPTION:
            target = target._replace(held=self._learner.refused(target.org_id) or NO_SUBSCRIPTION)
        return MappingResult(record, version, target)


async def _within_view_s(seen: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(_VIEW_S):
            await seen
    except TimeoutError:
        raise Unavailable("view_incomplete", "the customers table has not been read yet") from None
