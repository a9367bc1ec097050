"""Migrates users' customers to orgs: finds the missing steps, does them, and checks that none is missing.

A migration is complete if the org's customer names the user in its metadata, has a subscription that Meterbridge knows,
and pays for every mapping that named the user. So a run that was killed at any step can be repeated. The user's own
subscription ends last, when no usage can reach it any more (docs/orgs.md).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

import structlog

from connectors.billing.mappings import Mappings
from connectors.billing.org_billing import RUNNING, OrgBilling
from connectors.billing.org_takeover import FORMER, has_noted, migrate, noting
from connectors.billing.routed_discovery import RoutedDiscovery
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.billing.usage_limits import is_plan
from connectors.lago.customers import check_new_id, customer_part
from connectors.lago.errors import LagoRejected
from connectors.lago.metadata import notes
from connectors.lago.responses import Customer, Subscription
from connectors.operations.usage_in_flight import UsageInFlight
from connectors.operations.user_orgs import UserOrg
from schemas.customers import CustomerRecord
from schemas.errors import MeterbridgeError
from schemas.moments import SECOND_US, parse_us, to_iso
from streams.core.mapping.reassign import paid_until, repointing
from streams.core.mapping.set_mapping import MappingRequest, earliest_effective

#: States of one migration.
MIGRATED, ALREADY, WOULD, MISSING, SKIPPED, FAILED = "migrated", "already", "would", "missing", "skipped", "failed"

_ROUNDS = 3
NO_MAPPING = "no mapping names them: usage comes by another way. End them in Lago once it has stopped"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OldSubscription:
    """A user's subscription that is still active; `wait`: why it must not end yet, `""` = it can end now."""

    external_id: str
    wait: str


@dataclass(frozen=True, slots=True)
class MigrationOutcome:
    """The outcome of one user's migration.

    Fields:
        steps: a sentence for each step that was done; in a dry run or a check, for each missing step.
        subscription: external id of the subscription of the org.
        to_end: the user's own subscriptions.
    """

    user_id: str
    org_id: str
    state: str
    reason: str = ""
    steps: tuple[str, ...] = ()
    subscription: str = ""
    to_end: tuple[OldSubscription, ...] = ()


@dataclass(slots=True)
class _UserState:
    """Lago's data of one user and its org, and the missing steps."""

    user: Customer | None
    org: Customer | None
    org_s: Sequence[Subscription]
    user_s: Sequence[Subscription]
    to_end: list[OldSubscription] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    @property
    def own(self) -> Subscription | None:
        """The org's subscription. An active one is preferred to a pending one."""
        ranked = sorted(self.org_s, key=lambda one: one.status != "active")
        return ranked[0] if ranked else None


@dataclass(slots=True)
class OrgMigration:
    """Migrates one user after the other.

    Args:
        customers: the view of all mappings, which follows the changes of `mappings`.
        announce: writes the audit line before anything is changed.
        loose: reads the usage in flight. It is called only if a subscription could end, and again if its result is too
            old.
        mapping_delay_us: see `Mappings`. settled_us: see `connectors.operations.usage_in_flight`.
        now_us: microseconds since 1970 UTC.
    """

    billing: OrgBilling
    mappings: Mappings
    discovery: SubscriptionDiscovery | RoutedDiscovery
    customers: Mapping[str, CustomerRecord]
    _: KW_ONLY
    announce: Callable[[UserOrg, Sequence[str]], Awaitable[None]]
    loose: Callable[[], Awaitable[UsageInFlight]]
    mapping_delay_us: int
    settled_us: int
    now_us: Callable[[], int]
    _in_flight: UsageInFlight | None = field(default=None, init=False)
    _in_flight_us: int = field(default=0, init=False)
    _index: dict[str, list[str]] | None = field(default=None, init=False)

    async def look(self, entry: UserOrg, *, otherwise: str) -> MigrationOutcome:
        """Find the missing steps, and change nothing. Args: otherwise: the state to report if steps are missing."""
        try:
            state = await self._state_of(entry)
        except MeterbridgeError as error:
            return _not_done(entry, error)
        return _outcome(entry, state, otherwise if state.steps else ALREADY, state.steps)

    async def run(self, entry: UserOrg) -> MigrationOutcome:
        """Do the missing steps, then check again. If one user fails, the outcome is `FAILED`; no exception is raised."""
        try:
            state = await self._state_of(entry)
            if not state.steps:
                return _outcome(entry, state, ALREADY, ())
            await self.announce(entry, state.steps)
            await self._do(entry, state)
        except MeterbridgeError as error:
            return _not_done(entry, error)
        after = await self.look(entry, otherwise=MISSING)
        if after.state != ALREADY:
            return replace(after, state=FAILED, reason=after.reason or "still_missing")
        return replace(after, state=MIGRATED, steps=tuple(state.steps))

    async def _do(self, entry: UserOrg, state: _UserState) -> None:
        billing, org_id = self.billing, entry.org_id
        if state.user is not None and (state.org is None or state.own is None or not _remembers(state, entry)):
            name, email = entry.org_name or state.user.name or org_id, entry.email or state.user.email or ""
            await migrate(billing, entry.user_id, org_id, name, email)
            state = await self._state_of(entry)  # a mapping must not begin before the new subscription
        if state.own is not None and not self._knows(entry, state.own):
            await self.discovery.learn(org_id)
        for _ in range(_ROUNDS):  # after a version was changed, another change may be necessary
            for request in self._requests(entry, state.own):
                await self.mappings.put(request, ask_lago=False)
        for old in state.to_end:
            if not old.wait:
                await billing.terminate(entry.user_id, old.external_id)

    async def _state_of(self, entry: UserOrg) -> _UserState:
        """Read the state of one user. Raises: LagoRejected: the user must not be migrated; `reason` says why."""
        self._check(entry)
        lago = self.billing.lago
        state = _UserState(
            await lago.customer(entry.user_id),
            await lago.customer(entry.org_id),
            await lago.subscriptions(entry.org_id, RUNNING),
            await lago.subscriptions(entry.user_id, RUNNING),
        )
        if state.user is None and not _remembers(state, entry):
            raise LagoRejected("unknown_customer", "Lago has no such user")
        active = {subscription.external_id for subscription in state.user_s if subscription.status == "active"}
        if len({subscription.external_id for subscription in state.org_s}) > 1 or (
            state.own is None and len(active) > 1
        ):
            raise LagoRejected("several_subscriptions", "which of the subscriptions is meant is not known")
        self._plan_steps_of_lago(entry, state)
        self._plan_steps_of_mappings(entry, state)
        await self._plan_steps_of_old(entry, state)
        return state

    def _check(self, entry: UserOrg) -> None:
        if not entry.user_id or not entry.org_id:
            raise LagoRejected("bad_row", "a user and an org are needed")
        if is_plan(entry.org_id) or not self.billing.is_org(entry.org_id):
            raise LagoRejected("no_org_id", "the org's id does not begin as ORG_ID_PREFIXES say")
        if self.billing.is_org(entry.user_id):
            raise LagoRejected("user_is_org", "the user's id is an org's")
        customer_part(entry.org_id)

    def _plan_steps_of_lago(self, entry: UserOrg, state: _UserState) -> None:
        if state.org is None:
            check_new_id(entry.org_id)
            state.steps.append(f"create the customer {entry.org_id}")
        if not _remembers(state, entry) and (state.org is None or _has_room(state.org, entry.user_id)):
            state.steps.append(f"note {entry.user_id} in its metadata")
        active = next((subscription for subscription in state.user_s if subscription.status == "active"), None)
        if state.own is None and active is not None:
            state.steps.append(f"subscribe it to {active.plan_code}")
        elif state.own is not None and state.own.status == "active" and not self._knows(entry, state.own):
            state.steps.append(f"learn of its subscription {state.own.external_id}")

    def _knows(self, entry: UserOrg, own: Subscription) -> bool:
        return self.discovery.knows(entry.org_id, own.external_id)

    def _plan_steps_of_mappings(self, entry: UserOrg, state: _UserState) -> None:
        for request in self._requests(entry, state.own):
            when = "as soon as possible" if request.effective_from is None else f"from {to_iso(request.effective_from)}"
            state.steps.append(f"map {request.litellm_customer_id} to {entry.org_id} {when}")

    def _requests(self, entry: UserOrg, own: Subscription | None) -> list[MappingRequest]:
        now_us, begins_us = self.now_us(), _begins_us(own)
        versions = (
            repointing(
                one, entry.user_id, entry.org_id, earliest_effective(one, now_us, self.mapping_delay_us), begins_us
            )
            for one in self._naming(frozenset({entry.user_id}))
        )
        return [request for requests in versions for request in requests]

    async def _plan_steps_of_old(self, entry: UserOrg, state: _UserState) -> None:
        ids = frozenset(subscription.external_id for subscription in state.user_s)
        for external_id in sorted(ids):
            old = OldSubscription(external_id, await self._wait(entry, ids))
            state.to_end.append(old)
            if not old.wait:
                state.steps.append(f"end the subscription {external_id} of {entry.user_id}")

    async def _wait(self, entry: UserOrg, subscriptions: frozenset[str]) -> str:
        """Say why the user's subscriptions must not end yet; `""` = no usage can reach them any more.

        | state, in the order of the checks | answer |
        |---|---|
        | no mapping has ever named the user | `NO_MAPPING`: usage comes by a way that is not known here |
        | a mapping names the user now or later | a mapping names them |
        | the last such mapping ended less than `settled_us` ago | late usage may come until then |
        | usage is in a ledger, is dead, or has waited long in a topic since then | see `UsageInFlight.of` |
        """
        names = frozenset({entry.user_id, *subscriptions})
        if wait := self._mapped_wait(self._naming(names), entry, subscriptions):
            return wait
        # The index is from the first look. A customer may have been mapped to the user since then, so all customers are
        # checked.
        records = [record for record in self.customers.values() if names & _names(record)]
        if wait := self._mapped_wait(records, entry, subscriptions):
            return wait
        in_flight = await self._in_flight_since(self._settled(records, entry, subscriptions) or 0)
        return in_flight.of({*names, *(record.litellm_customer_id for record in records)})

    async def _in_flight_since(self, since_us: int) -> UsageInFlight:
        """Return the usage in flight, read at `since_us` or later. One reading serves many users.

        A reading from before `since_us` would lack usage that reached this user after it.
        """
        if self._in_flight is None or self._in_flight_us < since_us:
            asked_us = self.now_us()
            self._in_flight, self._in_flight_us = await self.loose(), asked_us
        return self._in_flight

    def _mapped_wait(self, records: Sequence[CustomerRecord], entry: UserOrg, subscriptions: frozenset[str]) -> str:
        """Say why usage may still be mapped to the user's subscriptions; `""` = it cannot."""
        if not records:
            return NO_MAPPING
        settled_us = self._settled(records, entry, subscriptions)
        if settled_us is None:
            return "a mapping names them"
        if self.now_us() < settled_us:
            return f"late usage may come until {to_iso(settled_us)}: run this again then"
        return ""

    def _settled(self, records: Sequence[CustomerRecord], entry: UserOrg, subscriptions: frozenset[str]) -> int | None:
        """Return the moment from which no usage reaches the user's subscriptions, microseconds since 1970 UTC; None = a
        mapping still names them.
        """
        untils = [paid_until(record, entry.user_id, subscriptions) for record in records]
        known = [until for until in untils if until is not None]
        return max(known) + self.settled_us if len(known) == len(untils) else None

    def _naming(self, names: frozenset[str]) -> list[CustomerRecord]:
        """Find the customers with a version that names one of these orgs or subscriptions, in the index of the first
        look.
        """
        if self._index is None:
            self._index = {}
            for customer_id, record in self.customers.items():
                for name in _names(record):
                    self._index.setdefault(name, []).append(customer_id)
        customers = {customer_id for name in names for customer_id in self._index.get(name, ())}
        records = (self.customers.get(customer_id) for customer_id in sorted(customers))
        return [record for record in records if record is not None]


def plan_of(entries: Iterable[UserOrg]) -> tuple[list[UserOrg], list[MigrationOutcome]]:
    """Return each user once, and a failed outcome for each user whose rows name several orgs."""
    orgs: dict[str, set[str]] = {}
    first: dict[str, UserOrg] = {}
    for entry in entries:
        key = entry.user_id or entry.where
        orgs.setdefault(key, set()).add(entry.org_id)
        first.setdefault(key, entry)
    clear = [entry for key, entry in first.items() if len(orgs[key]) == 1]
    unclear = [
        MigrationOutcome(entry.user_id, ", ".join(sorted(orgs[key])), SKIPPED, "several_orgs")
        for key, entry in first.items()
        if len(orgs[key]) > 1
    ]
    return clear, unclear


def _not_done(entry: UserOrg, error: MeterbridgeError) -> MigrationOutcome:
    """Return the state after an error: skipped if Meterbridge itself refuses the user, so that a repeat cannot help;
    otherwise failed.
    """
    if isinstance(error, LagoRejected) and not error.status:
        return MigrationOutcome(entry.user_id, entry.org_id, SKIPPED, error.reason)
    reason = (error.code if isinstance(error, LagoRejected) else "") or error.reason
    _log.warning("org_migration_failed", user=entry.user_id, org=entry.org_id, reason=reason, detail=error.detail)
    return MigrationOutcome(entry.user_id, entry.org_id, FAILED, reason)


def _outcome(entry: UserOrg, user_state: _UserState, state: str, steps: Sequence[str]) -> MigrationOutcome:
    own = user_state.own.external_id if user_state.own is not None else ""
    return MigrationOutcome(entry.user_id, entry.org_id, state, "", tuple(steps), own, tuple(user_state.to_end))


def _remembers(state: _UserState, entry: UserOrg) -> bool:
    return state.org is not None and has_noted(state.org, entry.user_id)


def _has_room(org: Customer, user_id: str) -> bool:
    """Return whether the customer's metadata in Lago has space for one more user id."""
    try:
        notes(org.metadata, {FORMER: noting(org, user_id)})
    except LagoRejected:
        return False
    return True


def _begins_us(own: Subscription | None) -> int:
    """Return the moment from which the org can pay, microseconds since 1970 UTC; 0 = not known."""
    begins = (own.started_at or own.subscription_at) if own is not None else None
    return -(-parse_us(begins) // SECOND_US) * SECOND_US if begins else 0


def _names(record: CustomerRecord) -> set[str]:
    """Return every org and subscription that the record's versions name."""
    orgs = {version.lago_customer_id for version in record.versions}
    return (orgs | {version.external_subscription_id for version in record.versions}) - {""}
