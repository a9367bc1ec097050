"""Metered events, which other services measured: counted once, never folded, billed one to one, held while the org has
no subscription.
"""

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.billing.metered_events import MAX_PROPERTIES_BYTES, MeteredEvent, metered
from connectors.ingest.raw_record import strip
from connectors.postgres.rows_of_calls import usage_rows
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import LedgerBroken, Rejected
from schemas.ledger import LEDGER_VERSION, PLAIN_VERSION, POSITION_KEY, TAGGED_VERSION, Position, Sum
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.records import EnrichedUsage, LagoEvent, WriteOff
from schemas.wire import FLAT, METERED, ORG, Call, Metered, RawRecord
from streams.core.mapping.held_reasons import ENDED, NO_SUBSCRIPTION, OUTSIDE_PERIOD
from streams.core.mapping.resolve import Resolver
from streams.core.metering.close_window import coalesce, due_windows, release, seal
from streams.core.metering.fold import TOO_MANY_HELD, Fold
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.normalise import normalise
from streams.core.metering.step_changes import Changes, apply
from streams.core.metering.write_off import write_off
from streams.state.changelog import Snapshot, records_of, restore
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.history import TopicRecord
from tests.support.metered import recorded

POLICY = MeterPolicy()
PREFIX = "d-t-0-"
RUNNING = {"org": OrgRecord("org", periods=(Period("sub", 0),))}
Orgs = dict[str, OrgRecord]
Customers = dict[str, CustomerRecord]


class Meter:
    """The meter's rules, without Kafka."""

    def __init__(self, orgs: Orgs, customers: Customers | None = None, policy: MeterPolicy = POLICY) -> None:
        self.ledger = LedgerState(Position())
        self.orgs, self.customers, self.policy = orgs, customers or {}, policy
        self.events: list[LagoEvent] = []
        self.enriched: list[EnrichedUsage] = []
        self.rejected: list[bytes] = []
        self.decisions: Counter[str] = Counter()
        self._fold = Fold(policy, PREFIX)

    def fold(self, *records: Raw, step: int = 1000) -> "Meter":
        for start in range(0, len(records), step):
            fetch_batch = [
                replace(record, offset=self.ledger.position.next + n)
                for n, record in enumerate(records[start : start + step])
            ]
            resolve = Resolver(self.customers, self.orgs, self.policy.out_of_period_policy)
            changes = self._fold(self.ledger, fetch_batch, resolve)
            self._commit(changes)
            self._seal([window.first for window in changes.ready])
        return self

    def punctuate(self, now_us: int = NOON + HOUR_US) -> "Meter":
        """Release, then seal what is due."""
        while not (changes := release(self.ledger, self.customers, self.orgs, self.policy, 3)).empty:
            self._commit(changes)
        self._seal([window.first for window in due_windows(self.ledger, now_us, self.policy, 1000)])
        return self

    def _seal(self, firsts: list[int]) -> None:
        windows = [self.ledger.windows[first] for first in firsts]
        self._commit(seal(self.ledger.position, windows, self.orgs, self.policy, PREFIX, 0, NOON))

    def _commit(self, changes: Changes) -> None:
        apply(self.ledger, changes, NOON)
        verify(self.ledger)
        self.events += [sealed.event for sealed in changes.sealed]
        self.enriched += [msgspec.json.decode(value, type=EnrichedUsage) for _, value in changes.enriched]
        self.decisions.update(changes.decisions)
        self.rejected += [value for _, value in changes.rejected]


def content_of_events(meter: Meter) -> set[tuple[str, ...]]:
    """The content of all events, independent of the order in which they were sealed."""
    return {
        (one.transaction_id, one.code, one.timestamp, one.external_subscription_id, str(sorted(one.properties.items())))
        for one in meter.events
    }


def test_an_event_keeps_its_code_and_its_properties() -> None:
    meter = Meter(RUNNING).fold(recorded("tx-1", code="gpu_seconds", seconds=7, gpu="h100", deep=0.25))
    [event] = meter.events
    assert (event.code, event.external_subscription_id) == ("gpu_seconds", "sub")
    assert event.properties == {
        "transaction_id": "tx-1",
        "seconds": "7",
        "gpu": "h100",
        "deep": "0.25",
        "org_id": "org",
    }
    assert event.timestamp == f"{NOON // SECOND_US}.000"
    assert event.precise_total_amount_cents == "0"


def test_metered_events_are_never_folded_with_calls_or_with_each_other() -> None:
    """In one minute, for one org and one code: calls become one event, three metered events stay three."""
    customers = {"acme": CustomerRecord("acme", (MappingVersion(0, "org", "tenant"),), 0, 0)}
    meter = Meter(RUNNING, customers).fold(
        recorded("a"), raw(0, slp(1)), recorded("b"), raw(0, slp(2)), recorded("c", at_us=NOON)
    )
    assert [event.properties["transaction_id"] for event in meter.events] == ["a", "b", "c"]
    meter.punctuate()
    assert [event.code for event in meter.events] == ["api_call"] * 3 + ["ai_usage"]
    assert meter.ledger.position.counters.sealed == Sum(5, Decimal("0.00029"))
    assert meter.ledger.position.seal_seq == 4


def test_lagos_transaction_id_depends_only_on_the_org_and_the_senders_id() -> None:
    """A repeat without a timestamp gets another time of receipt, and Lago still recognises it by this id."""
    ids = [
        Meter(RUNNING | {"other": OrgRecord("other", periods=(Period("s2", 0),))}).fold(record).events[0].transaction_id
        for record in (
            recorded("tx"),
            recorded("tx", at_us=NOON + HOUR_US, code="another", n=1),
            recorded("tx", org="other"),
            recorded("tx-2"),
        )
    ]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    assert all(len(one) == 32 for one in ids)


def test_a_sender_may_name_a_property_transaction_id_but_not_another_org() -> None:
    [event] = Meter(RUNNING).fold(recorded("tx", transaction_id="mine")).events
    assert event.properties["transaction_id"] == "mine"
    record = recorded("tx-2")
    assert record.value is not None
    forged = replace(record, value=record.value.replace(b'{"org_id":"org"}', b'{"org_id":"rich"}'))
    assert forged.value != record.value
    assert Meter(RUNNING).fold(forged).events[0].properties["org_id"] == "org"


mixed = st.lists(
    st.one_of(
        st.builds(
            lambda n, second: recorded(f"tx-{n}", at_us=NOON + second * SECOND_US, received_us=NOON + HOUR_US, n=n),
            st.integers(0, 15),
            st.integers(0, 200),
        ),
        st.builds(
            lambda n, second: raw(0, slp(n, at_us=NOON + second * SECOND_US), received_us=NOON + HOUR_US),
            st.integers(0, 15),
            st.integers(0, 200),
        ),
    ),
    min_size=1,
    max_size=30,
)


def unique(records: list[Raw]) -> list[Raw]:
    """One content for each identity."""
    found: dict[object, Raw] = {}
    for record in records:
        call = msgspec.json.decode(record.value or b"", type=RawRecord)
        name = call.metered.transaction_id if call.metered is not None else call.call.litellm_call_id
        found.setdefault(name, record)
    return list(found.values())


@settings(max_examples=60)
@given(records=mixed, data=st.data(), step=st.integers(1, 9))
def test_order_repetition_and_slicing_do_not_change_what_is_billed(
    records: list[Raw], data: st.DataObject, step: int
) -> None:
    records = unique(records)
    again = data.draw(st.permutations([*records, *data.draw(st.lists(st.sampled_from(records), max_size=10))]))
    plain, repeated = Meter(RUNNING).fold(*records), Meter(RUNNING).fold(*again, step=step)
    assert content_of_events(plain) == content_of_events(repeated)
    counters = repeated.ledger.position.counters
    assert counters.duplicate.calls == len(again) - len(records)
    assert counters.folded == plain.ledger.position.counters.folded
    assert counters.sealed.calls == len(plain.events)


@settings(max_examples=40)
@given(records=mixed, data=st.data())
def test_a_released_event_is_billed_as_if_it_had_never_been_held(records: list[Raw], data: st.DataObject) -> None:
    records = unique(records)
    late = Meter({}).fold(*data.draw(st.permutations(records)))
    assert not late.events
    late.orgs.update(RUNNING)
    assert content_of_events(late.punctuate()) == content_of_events(Meter(dict(RUNNING)).fold(*records))
    assert not late.ledger.metered


def test_an_event_is_held_while_its_org_has_no_subscription() -> None:
    orgs: Orgs = {}
    meter = Meter(orgs).fold(recorded("tx")).punctuate()
    assert [window.held for window in meter.ledger.windows.values()] == [NO_SUBSCRIPTION]
    assert [(one.decision, one.held, one.org_id) for one in meter.enriched] == [("metered", NO_SUBSCRIPTION, "org")]
    orgs["org"] = OrgRecord("org", subscription_id="sub")
    assert not meter.punctuate().events
    orgs["org"] = RUNNING["org"]
    [event] = meter.punctuate(NOON + POLICY.grace_us).events  # there is no window whose end it would have to wait for
    assert (event.transaction_id, event.external_subscription_id) == (meter.enriched[0].part, "sub")


@pytest.mark.parametrize("mapped_to", ["org", "elsewhere", None])
def test_a_litellm_customer_with_the_orgs_name_does_not_matter(mapped_to: str | None) -> None:
    customers = {} if mapped_to is None else {"org": CustomerRecord("org", (MappingVersion(0, mapped_to, "t"),), 0, 0)}
    meter = Meter(dict(RUNNING), customers).fold(recorded("tx"), raw(0, slp(1), customer="org"))
    assert [event.external_subscription_id for event in meter.events] == ["sub"]
    held = {window.metered for window in meter.punctuate().ledger.windows.values()}
    assert held == ({None} if mapped_to != "org" else set())


def test_the_orgs_currency_does_not_matter_for_an_event_without_an_amount() -> None:
    euros = OrgRecord("org", currency="EUR", periods=(Period("sub", 0),))
    assert len(Meter({"org": euros}).fold(recorded("tx")).events) == 1


@pytest.mark.parametrize(
    ("late", "period", "billed_us", "held"),
    [
        (OutOfPeriodPolicy.SHIFT, Period("sub", NOON + HOUR_US), NOON + HOUR_US, ""),
        (OutOfPeriodPolicy.HOLD, Period("sub", NOON + HOUR_US), None, OUTSIDE_PERIOD),
        (OutOfPeriodPolicy.SHIFT, Period("sub", 0, NOON), None, ENDED),
        (OutOfPeriodPolicy.HOLD, Period("sub", 0, NOON + HOUR_US), NOON, ""),
    ],
)
def test_an_event_is_billed_in_its_period_or_moved_or_held(
    late: OutOfPeriodPolicy, period: Period, billed_us: int | None, held: str
) -> None:
    orgs = {"org": OrgRecord("org", periods=(period,))}
    meter = Meter(orgs, policy=replace(POLICY, out_of_period_policy=late)).fold(recorded("tx"))
    if billed_us is None:
        assert [window.held for window in meter.ledger.windows.values()] == [held]
        assert [one.held for one in meter.enriched] == [held]
        orgs["org"] = RUNNING["org"]
        billed_us = NOON
        meter.punctuate()
    [event] = meter.events
    assert event.timestamp == f"{billed_us // SECOND_US}.000"
    assert ("usage_end" in event.properties) == (billed_us != NOON)


def test_an_event_that_was_held_longer_than_the_dedupe_retention_is_still_recognised() -> None:
    later = NOON + 60 * HOUR_US
    meter = Meter({}).fold(recorded("tx"), recorded("filler", at_us=later), recorded("tx", at_us=later), step=1)
    assert meter.ledger.position.counters.duplicate.calls == 1
    assert meter.decisions == {"metered": 2, "duplicate": 1}
    meter.orgs.update(RUNNING)
    assert len(meter.punctuate(later + HOUR_US).events) == 2


def test_an_event_beyond_the_dedupe_retention_is_refused_unless_it_was_checked() -> None:
    old = NOON - 30 * HOUR_US
    meter = Meter(RUNNING).fold(recorded("new"), recorded("old", at_us=old, received_us=NOON))
    assert [event.properties["transaction_id"] for event in meter.events] == ["new"]
    assert b'"beyond_horizon"' in meter.rejected[0]
    envelope = msgspec.json.decode(meter.rejected[0])["call"]
    checked = msgspec.json.encode(envelope | {"checked_at": NOON})
    meter.fold(Raw(0, NOON // 1000, b"org", checked))
    assert [event.properties["transaction_id"] for event in meter.events] == ["new", "old"]


def test_the_number_of_held_events_is_bounded_and_refused_ones_can_be_sent_again() -> None:
    """Events cannot be merged, so memory would be unbounded; an event whose org has a subscription is still accepted."""
    tight = replace(POLICY, max_held_metered=5)
    meter = Meter({"rich": OrgRecord("rich", periods=(Period("s", 0),))}, policy=tight)
    meter.fold(*(recorded(f"tx-{n}") for n in range(8)), recorded("r", org="rich"), step=3)
    assert len(meter.ledger.metered) == 5 and len(meter.events) == 1
    assert [f'"{TOO_MANY_HELD}"'.encode() in value for value in meter.rejected] == [True] * 3
    meter.orgs.update(RUNNING)
    meter.punctuate()
    meter.fold(*(recorded(f"tx-{n}") for n in range(8)))
    assert {event.properties["transaction_id"] for event in meter.events} == {f"tx-{n}" for n in range(8)} | {"r"}
    assert meter.ledger.position.counters.duplicate.calls == 5


def test_held_events_are_not_merged() -> None:
    meter = Meter({}).fold(recorded("a"), recorded("b"))
    assert coalesce(meter.ledger, {}, {}, POLICY, NOON + 30 * HOUR_US, 100).empty


def test_an_operator_may_write_held_events_off() -> None:
    meter = Meter({}).fold(recorded("a"), recorded("b"), raw(0, slp(1), customer="org"))
    order = WriteOff("audit-1", NOON, NOON, ORG)
    changes = write_off(meter.ledger, meter.ledger.position.next, NOON // 1000, "org", order, PREFIX)
    apply(meter.ledger, changes, NOON)
    verify(meter.ledger)
    assert (meter.ledger.position.counters.written_off.calls, len(meter.ledger.windows)) == (2, 1)
    assert {receipt.transaction_id for receipt in changes.receipts} == {one.part for one in meter.enriched[:2]}


def test_a_ledger_requires_this_release_as_soon_as_it_holds_what_an_older_release_would_misread() -> None:
    """An older release would bill a held event as tokens, and would not recognise the identities."""

    def stored(changes: Changes) -> tuple[Snapshot, int]:
        snapshot = Snapshot(0)
        for key, value in records_of(changes):
            if key == POSITION_KEY:
                snapshot.position = value
            elif key[:1] == b"w":
                snapshot.windows[int.from_bytes(key[1:9], "big")] = value
        return snapshot, msgspec.msgpack.decode(snapshot.position or b"", type=Position).v

    meter = Meter({})
    fold, resolve = Fold(POLICY, PREFIX), Resolver({}, {})
    assert stored(Changes(Position()))[1] == PLAIN_VERSION
    assert stored(fold(meter.ledger, [raw(0, slp(1))], resolve))[1] == TAGGED_VERSION
    assert stored(fold(meter.ledger, [recorded("tx")], Resolver({}, RUNNING)))[1] == TAGGED_VERSION
    snapshot, version = stored(fold(meter.ledger, [recorded("tx")], resolve))
    assert version == TAGGED_VERSION
    restored = LedgerState(Position())
    restore(restored, snapshot, NOON)
    verify(restored)
    assert len(restored.metered) == 1 and restored.position.v == TAGGED_VERSION
    assert next(iter(restored.windows.values())).metered == Metered("org", "tx", "api_call", NOON, {"org_id": "org"})
    snapshot.windows = dict.fromkeys(snapshot.windows)
    snapshot.position = msgspec.msgpack.encode(Position(v=LEDGER_VERSION))
    restore(restored, snapshot, NOON)
    assert restored.position.v == LEDGER_VERSION and not restored.metered
    snapshot.position = msgspec.msgpack.encode(Position(v=LEDGER_VERSION + 1))
    with pytest.raises(LedgerBroken, match="newer_version"):
        restore(LedgerState(Position()), snapshot, NOON)


@pytest.mark.parametrize(
    ("metered_usage", "kind", "reason"),
    [
        (None, ORG, "bad_event"),
        (Metered("org", "tx", "c", NOON), "user", "bad_event"),
        (Metered("", "tx", "c", NOON), ORG, "no_identity"),
        (Metered("org", "", "c", NOON), ORG, "no_identity"),
        (Metered("org", "tx", "c", -1), ORG, "bad_time"),
        (Metered("org", "tx", "c", 10**20), ORG, "bad_time"),
    ],
)
def test_an_event_that_can_never_be_billed_is_refused(metered_usage: Metered | None, kind: str, reason: str) -> None:
    record = RawRecord(1, "api", METERED, NOON, kind, Call(), metered=metered_usage)
    with pytest.raises(Rejected, match=reason):
        normalise(record, "org", Decimal("1e-12"))


def test_a_time_in_the_future_is_replaced_by_the_time_of_receipt() -> None:
    meter = Meter(RUNNING).fold(recorded("tx", at_us=NOON + HOUR_US, received_us=NOON))
    assert meter.events[0].timestamp == f"{NOON // SECOND_US}.000"
    assert meter.enriched[0].note == "future_time"


def test_a_call_cannot_bring_its_own_properties_into_the_topic() -> None:
    """Free properties need a key of the management API; through a webhook they might carry prompts."""
    event = {"org_id": "org", "transaction_id": "t", "code": "c", "at": 0, "properties": {"prompt": "secret"}}
    element = msgspec.json.encode({"id": "1", "spend": 1, "user": "u", "metered": event, "shape": METERED})
    stripped = strip(element, FLAT, NOON, ("user",))
    assert stripped is not None and b"secret" not in stripped[1] and b"metered" not in stripped[1]


def test_the_usage_log_never_takes_a_metered_event_for_a_litellm_call() -> None:
    """A service may record usage under LiteLLM's request id; a backfill must not take the call for known."""
    meter = Meter(RUNNING).fold(recorded("chatcmpl-1"))
    result = TopicRecord(0, NOON // 1000, b"org", msgspec.json.encode(meter.enriched[0]))
    [row] = usage_rows([result]).rows  # type: ignore[list-item]  # it has no headers at all
    assert row[5] == "" and "chatcmpl-1" in row


def test_properties_have_a_size_limit_and_contain_only_what_every_store_accepts() -> None:
    event = metered("org ", "code", "tx", {"n\0ame": "a\ud800b\0"}, NOON / SECOND_US, NOON)
    assert event == MeteredEvent("org", "tx", "code", NOON, {"name": "a\ufffdb", "org_id": "org"})
    with pytest.raises(Rejected, match="bad_property"):
        metered("org", "code", "tx", {"x": "y" * MAX_PROPERTIES_BYTES}, None, NOON)
    with pytest.raises(Rejected, match="bad_event"):
        metered("org", "code", "tx\udc00", None, None, NOON)
