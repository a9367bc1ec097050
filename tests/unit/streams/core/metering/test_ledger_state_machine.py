"""Any operations on a ledger in any order: its sums add up, and another worker reads the same state from the changelog."""

from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.ledger import window_key
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.records import WriteOff
from streams.core.mapping.resolve import Resolver
from streams.core.metering.close_window import coalesce, due_windows, release, seal
from streams.core.metering.conservation import sum_of_windows
from streams.core.metering.fold import Fold
from streams.core.metering.write_off import write_off
from tests.support.calls import NOON, raw, slp
from tests.support.own_changelog import OwnChangelog, image_of

PREFIX = "d-t-0-"
NAMES = ("acme", "ghost")
ORGS = ("a", "b")
POLICIES = (
    MeterPolicy(),
    MeterPolicy(window_us=10 * SECOND_US, group_by=("team_id",)),
    MeterPolicy(window_us=0, out_of_period_policy=OutOfPeriodPolicy.HOLD),
    MeterPolicy(window_us=HOUR_US, group_by=("user_id", "team_id"), cost_decimals=6, dedupe_retention_us=2 * HOUR_US),
)
SECONDS = st.integers(-1000, 400)


class BooksMachine(RuleBasedStateMachine):
    """One partition, processed by workers with different settings."""

    def __init__(self) -> None:
        super().__init__()
        self.log = OwnChangelog()
        self.now_us = NOON
        self.number = 0
        self.customers: dict[str, CustomerRecord] = {}
        self.orgs: dict[str, OrgRecord] = {}
        self.policy = POLICIES[0]
        self.sealed_cents = Decimal(0)

    @rule(
        calls=st.lists(
            st.tuples(st.sampled_from(NAMES), SECONDS, st.sampled_from(["end_user", "team"])), min_size=1, max_size=4
        )
    )
    def calls_arrive(self, calls: list[tuple[str, int, str]]) -> None:
        start = self.log.ledger.position.next
        records = []
        for offset, (name, second, kind) in enumerate(calls, start):
            call = slp(self.number, at_us=self.now_us + second * SECOND_US, cost="0.1234567")
            call["metadata"] = {"user_api_key_team_id": f"t{self.number % 2}"}
            records.append(raw(offset, call, customer=name, received_us=self.now_us, kind=kind))
            self.number += 1
        changes = Fold(self.policy, PREFIX)(self.log.ledger, records, Resolver(self.customers, self.orgs))
        self.log.commit(changes, self.now_us)

    @rule(name=st.sampled_from(NAMES), org=st.sampled_from(ORGS), second=SECONDS, kind=st.sampled_from(["", "team"]))
    def is_mapped(self, name: str, org: str, second: int, kind: str) -> None:
        known = self.customers.get(name)
        at = (self.now_us + second * SECOND_US) // SECOND_US * SECOND_US
        older = [one for one in known.versions if one.effective_from < at] if known else []
        new = MappingVersion(at, org, "tenant", id_kind=kind)
        self.customers[name] = CustomerRecord(name, (*older, new), 0, 0)

    @rule(
        org=st.sampled_from(ORGS), second=SECONDS, micro=st.integers(0, 999_999), currency=st.sampled_from(["", "EUR"])
    )
    def is_subscribed(self, org: str, second: int, micro: int, currency: str) -> None:
        at = self.now_us + second * SECOND_US + micro
        known = self.orgs.get(org, OrgRecord(org)).periods
        older = [Period(one.external_id, one.started_at, at) for one in known if one.started_at < at]
        self.orgs[org] = OrgRecord(org, currency=currency, periods=(*older, Period(f"{org}-{len(older)}", at)))

    @rule(limit=st.integers(1, 5))
    def merges(self, limit: int) -> None:
        later = self.now_us + 2 * HOUR_US
        changes = coalesce(self.log.ledger, self.customers, self.orgs, self.policy, later, limit)
        self.log.commit(changes, self.now_us)

    @rule(limit=st.integers(1, 5))
    def releases(self, limit: int) -> None:
        self.log.commit(release(self.log.ledger, self.customers, self.orgs, self.policy, limit), self.now_us)

    @rule(limit=st.integers(1, 5), later_s=st.integers(0, 7200))
    def seals(self, limit: int, later_s: int) -> None:
        ledger = self.log.ledger
        due = due_windows(ledger, self.now_us + later_s * SECOND_US, self.policy, limit)
        changes = seal(ledger.position, due, self.orgs, self.policy, PREFIX, 0, self.now_us)
        for sealed in changes.sealed:
            self.sealed_cents += Decimal(sealed.event.precise_total_amount_cents)
        self.log.commit(changes, self.now_us)

    @rule(name=st.sampled_from(NAMES), second=SECONDS, limit=st.integers(2, 6))
    def is_given_up(self, name: str, second: int, limit: int) -> None:
        ledger = self.log.ledger
        order = WriteOff("audit", self.now_us, self.now_us + second * SECOND_US)
        offset = ledger.position.next
        while ledger.position.next == offset:
            self.log.commit(write_off(ledger, offset, 0, name, order, PREFIX, limit), self.now_us)

    @rule(policy=st.sampled_from(POLICIES))
    def another_worker_takes_over(self, policy: MeterPolicy) -> None:
        self.log.taken_over(self.now_us)
        self.policy = policy

    @rule(seconds=st.integers(1, 5000))
    def time_passes(self, seconds: int) -> None:
        self.now_us += seconds * SECOND_US

    @precondition(lambda self: self.log.values)
    @invariant()
    def another_worker_reads_the_same(self) -> None:
        assert image_of(self.log.restored()) == image_of(self.log.ledger)

    @invariant()
    def every_window_is_in_the_index_and_none_is_lost(self) -> None:
        ledger = self.log.ledger
        keys: dict[object, int] = {}
        for first, window in ledger.windows.items():
            assert window.first == first
            key = window_key(window)
            keys[key] = min(first, keys.get(key, first))
        assert ledger.index == keys
        held = {first for firsts in ledger.held.values() for first in firsts}
        assert held == {first for first, window in ledger.windows.items() if window.held}
        assert set(ledger.open) == ledger.windows.keys() - held

    @invariant()
    def what_was_sealed_is_what_events_say(self) -> None:
        counters = self.log.ledger.position.counters
        assert counters.sealed.cost * 100 == self.sealed_cents
        waiting = sum_of_windows(self.log.ledger.windows.values())
        assert counters.folded.calls == counters.sealed.calls + counters.written_off.calls + waiting.calls


BooksMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestBooks = BooksMachine.TestCase
