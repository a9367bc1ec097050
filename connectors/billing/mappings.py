"""Customer mappings, which say who pays. They are read from this process's table, and changed in their compacted topic.

The topic is the source of truth, and the table follows it. A write returns as soon as this process's own table shows
it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

import structlog

from connectors.billing.in_slices import in_slices
from connectors.billing.routed_discovery import RoutedDiscovery
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.kafka.compacted_writer import CompactedTopicWriter
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord
from schemas.errors import Rejected, Unavailable
from schemas.moments import to_iso
from streams.core.mapping.held_reasons import NO_SUBSCRIPTION
from streams.core.mapping.resolve import Target, resolve
from streams.core.mapping.set_mapping import (
    EndMappingRequest,
    MappingRequest,
    corrected_by,
    earliest_effective,
    end_mapping,
    in_force,
    set_mapping,
    shown,
    takes_effect,
)
from streams.runtime.compacted_table import CompactedTable

#: Time limit of the wait for complete tables, seconds.
_VIEW_S = 3.0
#: The most orgs of an import that are looked up in Lago, and how many at the same time.
_MOST_ASKED, _ASKED_AT_ONCE = 1000, 4
#: The warning about a mapping to an org that Lago does not know.
UNKNOWN_ORG: Final = (
    "Lago has no customer with this `lago_customer_id`: is it right? "
    "Usage is held until Lago has the customer, with a subscription"
)

_log = structlog.get_logger(__name__)

Known = CustomerRecord | None


@dataclass(frozen=True, slots=True)
class MappingResult:
    """A customer's record, the requested version, and the target of its usage.

    Fields:
        corrected: the mistaken version that `version` replaces from its beginning on; None = none.
        unknown_org: Lago was asked, and has no customer with the org's id.
    """

    record: CustomerRecord
    version: MappingVersion
    target: Target
    created: bool = False
    changed: bool = False
    corrected: MappingVersion | None = None
    unknown_org: bool = False


class MappingGuard(Protocol):
    """Decides whether a caller may change a mapping, at three points of the change."""

    def admits(self, customer_id: str, known: Known) -> None:
        """Check the caller before any request to Lago and any write, so that the duration of a refusal reveals nothing.

        Raises: MeterbridgeError: the caller may not change this customer.
        """

    def allows(self, before: Known, after: CustomerRecord) -> None:
        """Check each attempted change; `before` = `after` if there is nothing to change.

        Raises: MeterbridgeError: the caller may not make this change.
        """

    async def changing(self, before: Known, after: Known) -> None:
        """Called immediately before the change is written. Raises: Unavailable: the change must not be written."""


class _Attempt(NamedTuple):
    """One run of `make`: the record before it, the moment from which its version applies, and the version that it
    corrects.
    """

    before: Known
    at_us: int
    corrected: MappingVersion | None


class NoGuard:
    """Allows every change."""

    def admits(self, customer_id: str, known: Known) -> None:
        """See `MappingGuard`."""

    def allows(self, before: Known, after: CustomerRecord) -> None:
        """See `MappingGuard`."""

    async def changing(self, before: Known, after: Known) -> None:
        """See `MappingGuard`."""


class Mappings:
    """The customer mappings of one deployment.

    Args:
        mapping_delay_us: `MAPPING_DELAY_SECONDS`; `keep_us`: see `set_mapping`.
        now_us: microseconds since 1970 UTC.
        event_code: code of the metric that a subscription must charge.
        canary: LiteLLM customer id of the canary, which is not counted as a customer; `""` = none.

    Attributes:
        placed: adds the key of the org to an external request, see `connectors.billing.organizations`.
    """

    def __init__(
        self,
        customers: CompactedTable[CustomerRecord],
        orgs: CompactedTable[OrgRecord],
        records: CompactedTopicWriter[CustomerRecord],
        discovery: SubscriptionDiscovery | RoutedDiscovery,
        *,
        mapping_delay_us: int,
        keep_us: int,
        now_us: Callable[[], int],
        event_code: str = "",
        canary: str = "",
        placed: Callable[[MappingRequest], MappingRequest] = lambda request: request,
    ) -> None:
        self.placed = placed
        self._customers = customers
        self._orgs = orgs
        self._records = records
        self._discovery = discovery
        self._mapping_delay_us = mapping_delay_us
        self._keep_us = keep_us
        self._now_us = now_us
        self._event_code = event_code
        self._canary = canary
        self._counting: asyncio.Task[int] | None = None

    async def get(self, customer_id: str) -> MappingResult | None:
        """Return the customer's record and the version to show now; None = no mapping. Raises: Unavailable
        `view_incomplete`.
        """
        await self.ready()
        return self.mapped(customer_id)

    def mapped(
        self, customer_id: str, predicate: Callable[[MappingVersion], bool] = lambda _: True
    ) -> MappingResult | None:
        """Like `get`, for tables that are `ready`. None also if the version does not satisfy `predicate`."""
        record = self._customers.table.get(customer_id)
        version = None if record is None else shown(record.versions, self._now_us())
        if record is None or version is None or not predicate(version):
            return None
        return self._mapped(record, version)

    async def record(self, customer_id: str) -> CustomerRecord | None:
        """Return the customer's record, even if its mapping was deleted. Raises: as `get`."""
        await self.ready()
        return self._customers.table.get(customer_id)

    def payers(self, record: CustomerRecord) -> set[str]:
        """Return the orgs that pay from now on; empty = the customer has no mapping."""
        return {version.lago_customer_id for version in self.paying(record)}

    def paying(self, record: CustomerRecord) -> list[MappingVersion]:
        """Return the current version and the later ones, without deleted ones."""
        version = shown(record.versions, self._now_us())
        return [
            other
            for other in record.versions
            if version is not None and other.effective_from >= version.effective_from and not other.deleted
        ]

    def is_subscription_of(self, org_id: str, external_id: str) -> bool:
        """Return whether the org's record knows this subscription as the org's own."""
        org = self._orgs.table.get(org_id)
        return org is not None and external_id in {org.subscription_id, *(period.external_id for period in org.periods)}

    async def active_customers(self) -> int:
        """Count the customers whose current version is active, without the canary. Other tasks run meanwhile.

        Concurrent callers get the same result. Each count needs a copy of the table, and the number of callers is not
        limited.
        """
        if self._counting is None or self._counting.done():
            self._counting = asyncio.ensure_future(self.count_active())
        return await asyncio.shield(self._counting)

    async def count_active(self) -> int:
        """Count them from now on; a concurrent count is not shared. The caller limits the number of calls."""
        now_us, active = self._now_us(), 0
        async for records in in_slices(self._customers.table.items()):
            active += sum(
                in_force(record.versions, now_us).is_active for name, record in records if name != self._canary
            )
        return active

    async def put(
        self, request: MappingRequest, guard: MappingGuard | None = None, *, ask_lago: bool = True
    ) -> MappingResult:
        """Map a customer. On return `get` shows the mapping. A repeated request changes nothing.

        Args:
            ask_lago: ask Lago about an unknown subscription while the caller waits; otherwise a later round of the
                discovery asks. Lago is also asked about the org of the old mapping. If neither Lago nor Meterbridge
                knows that org, the old mapping was a mistake, and the new one corrects it.

        Raises:
            Rejected: see `set_mapping`; also the errors of `guard`.
            Unavailable: Kafka does not acknowledge the record, or the table does not show it in time. Repeating is
                safe.
        """
        await self.ready()
        self.check(request.litellm_customer_id, guard := guard or NoGuard())
        org_id, named, unknown_org = request.lago_customer_id, request.external_subscription_id, False
        if ask_lago and not self._discovery.knows(org_id, named):
            answers = await self._discovery.learn(org_id, [named] if named else ())
            unknown_org = answers and bool(await self._discovery.is_unknown(org_id))
        unknown = await self._unknown(request) if ask_lago and request.correct is None else frozenset[str]()

        def make(known: Known, now_us: int) -> tuple[CustomerRecord, MappingVersion | None]:
            wrong = corrected_by(known, request, now_us, self._mapping_delay_us, unknown)
            return set_mapping(known, request, now_us, self._mapping_delay_us, self._keep_us, unknown), wrong

        made = await self._change(request.litellm_customer_id, request, make, guard)
        self._discovery.mapped(made.version)
        return replace(made, unknown_org=unknown_org)

    async def unknown_orgs(self, org_ids: Sequence[str]) -> tuple[list[str], int]:
        """Return the orgs that neither Meterbridge nor Lago knows, and how many were not looked up.

        Lago is asked about the first `_MOST_ASKED` of them, and no further once it does not answer.
        """
        unknown = []
        for first in range(0, min(len(org_ids), _MOST_ASKED), _ASKED_AT_ONCE):
            some = org_ids[first : first + _ASKED_AT_ONCE]
            answers = await asyncio.gather(*map(self._discovery.is_unknown, some))
            unknown += [org_id for org_id, answer in zip(some, answers, strict=True) if answer]
            if None in answers:
                return unknown, len(org_ids) - first - len(some) + answers.count(None)
        return unknown, max(0, len(org_ids) - _MOST_ASKED)

    def check(self, customer_id: str, guard: MappingGuard) -> None:
        """Ask the guard whether the caller may change this customer. The tables must be `ready`. Raises: the errors of
        the guard.
        """
        guard.admits(customer_id, self._customers.table.get(customer_id))

    def would(self, request: MappingRequest) -> tuple[Known, CustomerRecord]:
        """Return the customer's present record, and the record that `put` would write. The tables must be `ready`.
        Raises: as `set_mapping`.
        """
        known = self._customers.table.get(request.litellm_customer_id)
        return known, set_mapping(known, request, self._now_us(), self._mapping_delay_us, self._keep_us)

    async def end(
        self, customer_id: str, ending: EndMappingRequest, guard: MappingGuard | None = None
    ) -> MappingResult | None:
        """Deactivate or delete a mapping; None = there is no mapping. Raises: as `put`; see `end_mapping`."""
        await self.ready()
        self.check(customer_id, guard := guard or NoGuard())
        if (there := await self.get(customer_id)) is None:
            return None

        def make(known: Known, now_us: int) -> tuple[CustomerRecord, None]:
            return end_mapping(known or there.record, ending, now_us, self._mapping_delay_us, self._keep_us), None

        return await self._change(customer_id, ending, make, guard)

    async def ready(self) -> None:
        """Wait until the tables have been read. Raises: Unavailable `view_incomplete`."""
        await _within_view_s(self._customers.wait_fresh(float("inf")))
        await _within_view_s(self._orgs.wait_fresh(float("inf")))

    async def _change(
        self,
        customer_id: str,
        request: MappingRequest | EndMappingRequest,
        make: Callable[[Known, int], tuple[CustomerRecord, MappingVersion | None]],
        guard: MappingGuard,
    ) -> MappingResult:
        """Change the record. The change is applied to the record that is current when it is written; the mapping delay
        begins then.

        Args:
            make: takes the record and the moment; returns the new record and the version that it corrects (None =
                none). It runs again for each attempt to write, because another process may have written the record
                meanwhile. The result of the last run is stored.
        """
        last: list[_Attempt] = []

        def made(known: Known) -> CustomerRecord:
            now_us = self._now_us()
            at_us = takes_effect(request, now_us, self._mapping_delay_us, known)
            try:
                after, wrong = make(known, now_us)
            except Rejected:
                if known is not None:
                    guard.allows(
                        known, known
                    )  # a caller who may not see the customer must not learn what is wrong with the request
                raise
            guard.allows(known, after)
            last[:] = [_Attempt(known, at_us, wrong)]
            return after

        after = await self._records.change(customer_id, made, guard.changing)
        assert after is not None  # noqa: S101  # `make` deletes nothing
        before, at_us, wrong = last[0]
        changed, version = after != before, in_force(after.versions, at_us)
        wrong = wrong if changed else None
        is_late = bool(self._mapping_delay_us) and self._now_us() > version.effective_from
        if changed and is_late and wrong is None and before is not None and after.known_from >= before.known_from:
            _log.warning("mapping_stored_late", effective_from=to_iso(version.effective_from))
        created = before is None or shown(before.versions, self._now_us()) is None
        return replace(self._mapped(after, version), created=created, changed=changed, corrected=wrong)

    async def _unknown(self, request: MappingRequest) -> frozenset[str]:
        """Return the org that was mapped before, if neither Lago nor Meterbridge knows it."""
        known = self._customers.table.get(request.litellm_customer_id)
        if known is None:
            return frozenset()
        org_id = in_force(
            known.versions, earliest_effective(known, self._now_us(), self._mapping_delay_us)
        ).lago_customer_id
        other = org_id != request.lago_customer_id
        return frozenset({org_id}) if other and await self._discovery.is_unknown(org_id) else frozenset()

    def _mapped(self, record: CustomerRecord, version: MappingVersion) -> MappingResult:
        at_us = max(self._now_us(), version.effective_from)
        if in_force(record.versions, at_us) is not version:  # the version is older than all stored versions
            at_us = version.effective_from
        target = resolve(record, at_us, version.id_kind, self._orgs.table, self._event_code)
        if target.held == NO_SUBSCRIPTION:
            target = target._replace(held=self._discovery.refused(target.org_id) or NO_SUBSCRIPTION)
        return MappingResult(record, version, target)


async def _within_view_s(seen: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(_VIEW_S):
            await seen
    except TimeoutError:
        raise Unavailable(
            "view_incomplete",
            "the customers table has not been read yet: does Kafka answer at KAFKA_BOOTSTRAP_SERVERS?",
        ) from None
