"""Settings change while usage waits, and workers with different settings take over from each other: every amount stays
right.
"""

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.ledger import PLAIN_VERSION, POSITION_KEY, TAGGED_VERSION, Position, Window
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.records import LagoEvent
from streams.core.mapping.resolve import Resolver
from streams.core.metering import fold
from streams.core.metering.close_window import coalesce, due_windows, release, seal
from streams.core.metering.fold import Fold
from streams.core.metering.grouping import unnamed, with_group_names
from streams.core.metering.known_identities import COSTLESS
from streams.core.metering.lago_event import event_of
from streams.core.pricing.cards import Rates
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.own_changelog import OwnChangelog
from tests.support.rate_cards import card, entry

PREFIX = "d-t-0-"
PLAIN = MeterPolicy()
BY_TEAM = replace(PLAIN, group_by=("team_id",))
MAPPED = {"acme": CustomerRecord("acme", (MappingVersion(0, "org", "tenant"),), 0, 0)}
RUNNING = {"org": OrgRecord("org", periods=(Period("sub", 0),))}
Customers = dict[str, CustomerRecord]


class Line:
    """One partition, and every event that was sealed from it."""

    def __init__(self) -> None:
        self.log = OwnChangelog()
        self.events: list[LagoEvent] = []
        self.number = 0
        self.decisions: Counter[str] = Counter()

    def fold(
        self,
        policy: MeterPolicy,
        *calls: dict[str, object],
        customers: Customers = MAPPED,
        at: int = NOON,
        rates: Rates | None = None,
    ) -> None:
        start = self.log.ledger.position.next
        records: list[Raw] = [raw(start + n, call, received_us=at) for n, call in enumerate(calls)]
        changes = Fold(policy, PREFIX)(self.log.ledger, records, Resolver(customers, RUNNING), rates=rates)
        self.decisions.update(changes.decisions)
        self.log.commit(changes, at)

    def settle(self, policy: MeterPolicy, at: int = NOON + 2 * HOUR_US, customers: Customers = MAPPED) -> None:
        """Another worker with this policy takes over, and does all work that is due."""
        self.log.taken_over(NOON)
        while older := unnamed(self.log.ledger):
            self.log.commit(with_group_names(self.log.ledger, older, policy.group_by), at)
        while not (changes := release(self.log.ledger, customers, RUNNING, policy, 100)).empty:
            self.log.commit(changes, at)
        while due := due_windows(self.log.ledger, at + 30 * HOUR_US, policy, 100):
            changes = seal(self.log.ledger.position, due, RUNNING, policy, PREFIX, 0, at)
            self.events += [sealed.event for sealed in changes.sealed]
            self.log.commit(changes, at)

    def cents(self) -> Decimal:
        return sum((Decimal(event.precise_total_amount_cents) for event in self.events), Decimal(0))


def call(
    number: int, at_us: int = NOON, cost: str = "1", team: str = "t0", user: str = "u0", **fields: object
) -> dict[str, object]:
    metadata = {"user_api_key_team_id": team, "user_api_key_user_id": user}
    return slp(number, at_us=at_us, cost=cost, metadata=metadata, **fields)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [((), ("team_id",)), (("team_id",), ()), (("team_id",), ("user_id",)), (("team_id",), ("user_id", "team_id"))],
)
def test_a_windows_group_names_are_those_of_the_setting_at_its_start(
    before: tuple[str, ...], after: tuple[str, ...], *, held: bool
) -> None:
    """Earlier the partition stopped forever: the names of one setting were given the values of another; with an equal
    number of names they were wrong.
    """
    line, old, new = Line(), replace(PLAIN, group_by=before), replace(PLAIN, group_by=after)
    customers: Customers = {} if held else MAPPED
    line.fold(old, call(1), customers=customers)
    if held:
        later = NOON + 2 * HOUR_US
        line.log.commit(coalesce(line.log.ledger, {}, RUNNING, old, later, 10), NOON)
    line.log.taken_over(NOON)
    line.fold(new, call(2), customers=customers)
    line.log.taken_over(NOON)
    line.fold(old, call(3), customers=customers)
    line.settle(new)
    assert line.cents() == 300
    values = {"team_id": "t0", "user_id": "u0"}
    groups = [
        ({name: event.properties.get(name) for name in values} | {"requests": event.properties["requests"]})
        for event in line.events
    ]
    wanted = [
        {name: values[name] if name in names else ("acme" if name == "user_id" else None) for name in values}
        | {"requests": requests}
        for names, requests in ((before, "2"), (after, "1"))
    ]
    assert sorted(map(str, groups)) == sorted(map(str, wanted))


def test_a_longer_window_setting_adds_no_call_to_an_existing_shorter_window() -> None:
    """WINDOW_SECONDS 60 -> 3600: a call of minute 50 joined an open window of one minute."""
    line = Line()
    line.fold(PLAIN, call(1, NOON))
    line.log.taken_over(NOON)
    line.fold(replace(PLAIN, window_us=HOUR_US), call(2, NOON + 400 * SECOND_US))
    line.settle(PLAIN)
    spans = {(event.properties["window_start"], event.properties["window_end"]) for event in line.events}
    assert spans == {
        ("2026-11-20T12:00:00.000000Z", "2026-11-20T12:01:00.000000Z"),
        ("2026-11-20T12:00:00.000000Z", "2026-11-20T13:00:00.000000Z"),
    }


def test_a_shorter_dedupe_retention_and_then_a_longer_one_bill_no_repeat() -> None:
    """
    counted 10h ago | horizon 2h: forgotten | horizon 24h: its repeat is no new call, and not billed directly
    """
    line, short = Line(), replace(PLAIN, dedupe_retention_us=2 * HOUR_US)
    line.fold(PLAIN, call(1, NOON - 10 * HOUR_US), at=NOON - 10 * HOUR_US)
    line.fold(short, call(2))
    line.log.taken_over(NOON)
    line.fold(PLAIN, call(1, NOON - 10 * HOUR_US), call(2))
    assert line.decisions == {"billable": 2, "rejected:beyond_horizon": 1, "duplicate": 1}
    line.settle(PLAIN)
    assert line.cents() == 200


@pytest.mark.parametrize(("decimals", "second"), [(6, "0.0062"), (12, "0.00615449")])
def test_each_call_is_rounded_by_the_setting_it_was_folded_with_and_every_sum_is_exact(
    decimals: int, second: str
) -> None:
    line = Line()
    line.fold(PLAIN, call(1, cost="0.0000611339999999"))
    line.log.taken_over(NOON)
    line.fold(replace(PLAIN, cost_decimals=decimals), call(2, cost="0.0000615449000001"))
    line.settle(PLAIN)
    assert line.cents() == Decimal("0.0061134") + Decimal(second)


@pytest.mark.parametrize(
    ("changed", "fields", "billed"),
    [
        ({"bill_cache_hits": True}, {"cache_hit": True}, 1),
        ({"bill_cache_hits": False}, {"cache_hit": True}, 0),
        ({"event_code": "other"}, {}, 1),
        ({"grace_us": HOUR_US, "quiet_us": 0, "late_us": 0}, {}, 1),
        ({"out_of_period_policy": OutOfPeriodPolicy.HOLD}, {}, 1),
        ({"coalesce_us": 0, "max_held_metered": 0}, {}, 1),
    ],
)
def test_a_policy_applies_at_the_time_of_the_count_or_of_the_seal(
    changed: dict[str, object], fields: dict[str, object], billed: int
) -> None:
    """A repeat under another policy is still a repeat: the first decision stays."""
    line, new = Line(), replace(PLAIN, **changed)  # type: ignore[arg-type]
    line.fold(new, call(1, **fields))
    for policy in (PLAIN, new):
        line.log.taken_over(NOON)
        line.fold(policy, call(1, **fields))
    line.settle(new)
    assert line.decisions["duplicate"] == 2
    assert (len(line.events), line.cents()) == (billed, 100 * billed)
    assert {event.code for event in line.events} <= {new.event_code}


OAUTH, SILENT = {"used_client_oauth_token": True}, {"is_silent_experiment": True}


@pytest.mark.parametrize("cost", ["0", "2"])
@pytest.mark.parametrize("rates", [None, Rates([card(entry(input="1", per_request="3"))])], ids=["", "rated"])
@pytest.mark.parametrize(
    ("fields", "setting"),
    [
        ({"cache_hit": True}, "bill_cache_hits"),
        ({"byok": True}, "bill_byok"),
        ({"metadata": OAUTH}, "bill_own_subscriptions"),
        ({"metadata": SILENT}, "bill_silent_experiments"),
    ],
)
def test_a_call_that_a_policy_excluded_is_not_billed_when_it_is_repeated_under_another(
    fields: dict[str, object], setting: str, rates: Rates | None, cost: str
) -> None:
    """Earlier the repeat was billed if the call had no cost: a first copy without a cost stays open for its price."""
    line = Line()
    never, always = (replace(PLAIN, **{setting: bills}) for bills in (False, True))
    line.fold(never, slp(1, cost=cost, **fields), rates=rates)
    line.log.taken_over(NOON)
    line.fold(always, *[slp(number, cost=cost, **fields) for number in (1, 1, 2)], rates=rates)
    line.settle(always)
    assert line.decisions["duplicate"] == 2 and sum(line.decisions.values()) == 4
    assert all(event.properties["requests"] == "1" for event in line.events)
    assert len(line.events) == (1 if line.decisions["billable"] else 0)


@pytest.mark.parametrize("rates", [None, Rates([card(entry(input="1", per_request="3"))])], ids=["", "rated"])
def test_an_answer_from_the_cache_that_an_older_release_did_not_bill_is_not_billed_when_it_is_repeated(
    rates: Rates | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That release kept such a call open, as one without a price: its state lasts for the dedupe retention."""
    line, answer = Line(), slp(1, cost="0", cache_hit=True)
    with monkeypatch.context() as older:
        older.setattr(fold, "tag_of", lambda _usage, _decision: COSTLESS)
        line.fold(PLAIN, answer, rates=rates)
    line.log.taken_over(NOON)
    new = replace(PLAIN, bill_cache_hits=True)
    line.fold(new, answer, rates=rates)
    line.settle(new)
    assert line.decisions == {"cache_hit": 1, "duplicate": 1}
    assert line.events == []


POLICIES = [
    PLAIN,
    BY_TEAM,
    replace(PLAIN, window_us=0),
    replace(PLAIN, window_us=HOUR_US, group_by=("user_id",), cost_decimals=6),
    replace(PLAIN, window_us=10 * SECOND_US, dedupe_retention_us=2 * HOUR_US, coalesce_us=0),
    replace(BY_TEAM, grace_us=0, quiet_us=0, out_of_period_policy=OutOfPeriodPolicy.HOLD, cost_decimals=13),
]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(POLICIES),
            st.lists(st.integers(0, 30), min_size=1, max_size=6),
            st.booleans(),
            st.sampled_from(["fold", "merge", "settle"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_each_call_is_billed_once_for_any_settings_of_the_worker_that_takes_over(
    steps: list[tuple[MeterPolicy, list[int], bool, str]],
) -> None:
    """Calls repeat, are held or not, and merge; each costs a whole number of millionths, so that no rounding differs."""
    line, seen = Line(), set[int]()
    for policy, numbers, held, then in steps:
        line.log.taken_over(NOON)
        calls = [call(n, NOON - n * 7 * SECOND_US, f"0.00{n + 100}", f"t{n % 2}", f"u{n % 3}") for n in numbers]
        line.fold(policy, *calls, customers={} if held else MAPPED)
        seen.update(numbers)
        if then == "merge":
            later = NOON + 2 * HOUR_US
            line.log.commit(coalesce(line.log.ledger, {}, RUNNING, policy, later, 100), NOON)
        elif then == "settle":
            line.settle(policy)
    line.settle(PLAIN)
    assert not line.log.ledger.windows
    assert line.cents() == sum((Decimal(f"0.00{n + 100}") * 100 for n in seen), Decimal(0))
    for event in line.events:
        team = event.properties.get("team_id")
        assert team in (None, "t0", "t1")
        assert "group_1" not in event.properties


def older(*group: str) -> Window:
    """A window as a release before group names wrote it."""
    window = Window(7, 7, "acme", "end_user", "org", "sub", "", "m", "p", group, NOON, 60 * SECOND_US, NOON, NOON)
    window.count, window.cost = 1, Decimal(1)
    return window


@pytest.mark.parametrize(
    ("group", "group_by", "named_as"),
    [
        (("t0",), ("team_id",), {"team_id": "t0"}),
        (("t0",), (), {"group_1": "t0"}),
        (("t0", "u0"), ("team_id",), {"group_1": "t0", "group_2": "u0"}),
        ((), ("team_id",), {}),
    ],
)
def test_windows_of_an_older_release_get_the_names_of_the_setting_if_they_fit_and_never_stop_the_meter(
    group: tuple[str, ...], group_by: tuple[str, ...], named_as: dict[str, str]
) -> None:
    policy = replace(PLAIN, group_by=group_by)
    properties = event_of(older(*group), PREFIX, NOON, policy).properties
    plain = event_of(older(), PREFIX, NOON, PLAIN).properties
    assert {name: text for name, text in properties.items() if name not in plain} == named_as


def test_windows_of_an_older_release_keep_their_first_names() -> None:
    line = Line()
    window = older("t0")
    position = msgspec.structs.replace(line.log.ledger.position, next=8)
    position.counters.received = position.counters.folded = msgspec.structs.replace(position.counters.folded, calls=1)
    position.counters.received.cost = position.counters.folded.cost = Decimal(1)
    stored = msgspec.msgpack.encode(window)
    line.log.values = {b"w" + (7).to_bytes(8, "big"): stored, POSITION_KEY: msgspec.msgpack.encode(position)}
    line.log.taken_over(NOON)
    line.log.commit(with_group_names(line.log.ledger, unnamed(line.log.ledger), ("team_id",)), NOON)
    line.settle(replace(PLAIN, group_by=("user_id",)))
    (event,) = line.events
    assert (event.properties["team_id"], event.properties["user_id"]) == ("t0", "acme")


def test_a_release_that_would_misread_a_ledger_refuses_it() -> None:
    """Releases before version 3 know neither a window's group names nor the tags of identities."""
    assert Position().v == PLAIN_VERSION
    line = Line()
    line.fold(PLAIN, call(1))
    line.fold(BY_TEAM, call(2))
    line.settle(PLAIN)
    line.log.taken_over(NOON)
    assert line.log.ledger.position.v == TAGGED_VERSION
