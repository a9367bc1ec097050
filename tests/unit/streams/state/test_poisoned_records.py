"""A damaged record in any topic does not affect others: each reader counts or logs it, and continues with the next."""

import ast
import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.billing import event_state_reader, rejected_usage
from connectors.postgres import rows_of_calls, rows_of_events, rows_of_management
from schemas import customers, ledger, records, wire
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.decoding import Unreadable, decoder
from schemas.errors import LedgerBroken, TopicProblem
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from streams.agents import meter, received_event, sink
from streams.core.delivery.restamp import RestampDecision, restamp_decision
from streams.core.metering.ledger_state import LedgerState
from streams.runtime.compacted_table import CompactedTable
from streams.state.changelog import POSITION_KEY, restore
from tests.fuzz.stored import Stored
from tests.support.snapshots import snapshot_from

ROOT = Path(__file__).parents[4]
DEEP = b"[" * 200_000
HUGE = 9 * 10**18
GARBAGE: list[bytes | None] = [
    *(b"", b"{", b"null", b"[]", b'"x"', b"\xff", b'{"transaction_id":"\xff"}', b'{"zzz":' + DEEP, DEEP),
    *(b'{"at":1e999999999}', b'{"at":' + b"9" * 400 + b"}", None),
]


def customer(**changes: Any) -> bytes:
    version = MappingVersion(0, "org", "tenant")
    return msgspec.json.encode(msgspec.structs.replace(CustomerRecord("acme", (version,), 1, 1), **changes))


SOUND = customer()
CUSTOMERS = [
    customer(versions=()),
    customer(versions=(MappingVersion(HUGE, "org", "tenant"),)),
    customer(versions=(MappingVersion(-1, "org", "tenant"),)),
    customer(versions=(MappingVersion(5, "a", "t"), MappingVersion(4, "b", "t"))),
    customer(updated_at=HUGE),
]
ORGS = [msgspec.json.encode(OrgRecord("org", periods=(Period("sub", at),))) for at in (HUGE, -1)]


@given(st.binary() | st.text().map(str.encode) | st.sampled_from(GARBAGE))
def test_any_bytes_are_either_decoded_or_unreadable(value: bytes | None) -> None:
    for of in (records.LagoEvent, records.Receipt, records.Rejection, wire.RawRecord, CustomerRecord, OrgRecord):
        try:
            found = decoder(of)(value)
        except Unreadable as damage:
            found, result = None, str(damage)
        assert isinstance(found, of) or result.isidentifier(), "the error's kind, and nothing of the record"


@pytest.mark.parametrize(
    ("of", "bad", "good"), [(CustomerRecord, CUSTOMERS, SOUND), (OrgRecord, ORGS, b'{"org_id":"org"}')]
)
def test_a_table_keeps_its_state_and_continues(of: type[Any], bad: list[bytes], good: bytes) -> None:
    follower = CompactedTable({}, "topic", of, lambda: 0.0, "table")
    follower.take(0, [Stored(good)])  # type: ignore[list-item]
    for value in [*(one for one in GARBAGE if one is not None), *bad]:
        follower.take(0, [Stored(value), Stored(good, b"next")])  # type: ignore[list-item]
        assert set(follower.table) == {"acme", "next"}, value[:40]


Read = Callable[[Any], Any]


@pytest.mark.parametrize(
    "read", [event_state_reader._read, received_event.event_in, meter._order], ids=["receipts", "events", "orders"]
)
@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: repr(value)[:24])
def test_a_damaged_value_counts_as_none(read: Read, value: bytes | None) -> None:
    headers = [("control", b"write_off")]
    assert read(Stored(value, headers=headers)) is None


@pytest.mark.parametrize("manifest", GARBAGE, ids=lambda value: repr(value)[:24])
def test_a_damaged_manifest_counts_as_none(manifest: bytes | None) -> None:
    assert received_event.manifest_in(Stored(b"{}", headers=[("manifest", manifest)])) is None  # type: ignore[arg-type]


def test_rejections_after_a_damaged_one_are_counted() -> None:
    follower = rejected_usage.RejectedFollower({}, "topic", lambda: 0.0)
    sound = msgspec.json.encode(records.Rejection("malformed", "meter", 0))
    follower.take(0, [*(Stored(value) for value in GARBAGE), Stored(sound)])  # type: ignore[misc]
    assert dict(follower._counts) == {"malformed": 1}


@pytest.mark.parametrize(
    ("rows_of", "bad"),
    [
        (rows_of_calls.usage_rows, []),
        (rows_of_calls.rejected_rows, []),
        (rows_of_events.event_rows, []),
        (rows_of_events.receipt_rows, []),
        (rows_of_management.customer_rows, CUSTOMERS),
        (rows_of_management.org_rows, ORGS),
        (rows_of_management.audit_rows, []),
        (rows_of_management.delivery_rows, []),
    ],
)
def test_the_projector_counts_unreadable_records(rows_of: Callable[[Any], Any], bad: list[bytes]) -> None:
    values = [value for value in GARBAGE if value is not None] + bad
    result = rows_of([Stored(value) for value in values])
    assert (result.rows, len(result.aside)) == ([], len(values))


@pytest.mark.parametrize("cost", ["1e999999999", "-1e999999999", "1e-999999999", "1e5"])
def test_a_cost_with_any_exponent_becomes_a_row_with_or_without_it(cost: str) -> None:
    """In an earlier version, `abs` of the first cost ended the projector permanently."""
    call = (
        b'{"v":1,"source":"webhook","shape":"flat","received_at":1,"id_kind":"user","call":{"spend":%b}}'
        % cost.encode()
    )
    rejection = b'{"at":1,"stage":"meter","reason":"absurd_cost","detail":"","offset":3,"call":%b}' % call
    result = rows_of_calls.rejected_rows([Stored(rejection)])
    assert result.aside == []
    assert result.rows[0][6] == {"1e5": "100000", "1e-999999999": "0"}.get(cost)


LAGO_CALL = b'{"transaction_id":"t","external_subscription_id":"a","properties":{"response_cost":0.5}}'


@pytest.mark.parametrize(
    ("shape", "call", "cost"),
    [
        ("flat", b'{"id":"c","cost":0.5}', "0.5"),
        ("integration", b'{"request_id":"c","cost_usd":0.5}', "0.5"),
        ("slp", b'{"id":"c","response_cost":0.5}', "0.5"),
        ("lago", LAGO_CALL, "0.5"),
        ("lago", b'{"transaction_id":"t","precise_total_amount_cents":"12.5"}', "0.125"),
        ("lago", b'{"transaction_id":"t","precise_total_amount_cents":1e9999999}', None),
        ("cloudevent", b'{"cloud_event":{"id":"c","data":{"cost":0.5}}}', "0.5"),
        ("cloudevent", b'{"cloud_event":{"id":"c","data":{"precise_total_amount_cents":50}}}', "0.5"),
    ],
)
@pytest.mark.parametrize("stage", ["meter", "ingress"])
def test_a_rejected_call_has_its_cost_in_its_row_whatever_field_it_came_in(
    shape: str, call: bytes, cost: str | None, stage: str
) -> None:
    """In an earlier version `reconcile` said 0 USD of the refused calls of LiteLLM's `lago` and `openmeter` callbacks."""
    envelope = b'{"v":1,"source":"webhook","shape":"%b","received_at":1,"id_kind":"user","call":%b}'
    stored = envelope % (shape.encode(), call) if stage == "meter" else call
    rejection = b'{"at":1,"stage":"%b","reason":"beyond_horizon","detail":"","offset":3,"call":%b}'
    result = rows_of_calls.rejected_rows([Stored(rejection % (stage.encode(), stored))])
    assert (result.aside, result.rows[0][6]) == ([], cost)


@pytest.mark.parametrize(
    "headers",
    [
        [("resolves", None)],
        [("resolves", b"x")],
        [("resolves", b"1"), ("how", b"\xff")],
        [("seal_seq", None)],
        [("manifest", DEEP)],
    ],
)
def test_a_damaged_header_is_counted(headers: list[tuple[str, Any]]) -> None:
    event = msgspec.json.encode(records.LagoEvent("t", "sub", "code", "1", "1", {}))
    for rows_of in (rows_of_calls.rejected_rows, rows_of_events.event_rows):
        result = rows_of([Stored(event, headers=headers)])
        assert len(result.rows) + len(result.aside) == 1


@pytest.mark.parametrize("amount", ["abc", "NaN", "sNaN", "1e999999999", "Infinity", "1_000", "9" * 41, "0x1"])
def test_an_event_with_an_invalid_amount_is_no_event(amount: str) -> None:
    """In an earlier version the question whether it is owed ended the sink."""
    value = msgspec.json.encode(records.LagoEvent("t", "sub", "code", "1795176000.000", amount, {"org_id": "org"}))
    assert received_event.event_in(Stored(value)) is None
    assert restamp_decision(value, {"org": OrgRecord("org")}, OutOfPeriodPolicy.SHIFT, 1) == RestampDecision(value)


TOPIC = "AAAAAAAAAAAAAAAAAAAAAA"


@pytest.mark.parametrize(
    ("transaction_id", "deployment", "expected"),
    [
        (f"ours-{TOPIC}-0-7", "ours", True),
        (f"ours-{TOPIC}-0-7", "", True),
        (f"ours-{TOPIC}-0-7", "ourt", False),
        ("made-up", "ourt", False),
        ("theirs-made-up", "theirs", False),
        (f"theirs-{TOPIC}-0-7", "theirs", "halts"),
        (f"theirs-{TOPIC}-0-7-again", "theirs", "halts"),
        ("0123456789abcdef" * 2, "theirs", "halts"),
        ("0123456789abcdef" * 2 + "-again", "theirs", "halts"),
        (f"ours-b-{TOPIC}-0-7", "ours-b", "halts"),
        (f"ours-b-{TOPIC}-0-7", "our", False),
    ],
)
def test_a_manifest_that_contradicts_its_event_halts_no_partition(
    transaction_id: str, deployment: str, expected: bool | str
) -> None:
    """Earlier a flipped bit in it named another deployment, and its partition task stopped until a person acted."""
    manifest = msgspec.json.encode(records.Manifest(0, 1, 2, 2, (), deployment))
    record: Any = SimpleNamespace(topic="events", partition=0, offset=1, headers=[("manifest", manifest)])
    received = received_event.ReceivedEvent(record)
    event = records.LagoEvent(transaction_id, "sub", "code", "1", "1", {})
    work: Any = SimpleNamespace(_config=SimpleNamespace(policy=MeterPolicy(deployment="ours")))
    if expected == "halts":
        with pytest.raises(TopicProblem, match="other_deployment"):
            sink.DeliveryWork._is_whole(work, received, event)
    else:
        assert sink.DeliveryWork._is_whole(work, received, event) is expected


ISO = "2026-11-20T12:00:00.000000Z"


def call(**changes: Any) -> records.EnrichedUsage:
    sound = records.EnrichedUsage("0" * 32, 1, "acme", "user", "billable", Decimal("0.1"), ISO, ISO)
    return msgspec.structs.replace(sound, **changes)


BOUNDS = [
    (call(), True),
    (call(cost_usd=Decimal("NaN")), False),
    (call(cost_usd=Decimal("1e999999999")), False),
    (call(start="2026-02-30T12:00:00.000000Z"), False),
    (call(end="now"), False),
    (call(total_tokens=1 << 63), False),
    (call(identity="x"), False),
    (records.Manifest(-1, 0, 0, 1), False),
    (records.Manifest(0, 0, 0, 1, (1 << 63,)), False),
    (records.Manifest(1 << 31, 0, 0, 1), False),
    (records.Receipt("t", "completed", HUGE), False),
    (records.Receipt("t", "completed", 1, attempts=1 << 31), False),
    (records.Receipt("t", "completed", 1, cents="x"), False),
    (records.Receipt("t", "completed", 1, cents="-1.5E-3"), True),
    (records.AuditRecord("a", -1, "x", "y", {}), False),
    (records.AuditRecord("a", 1, "x", "y", {}, cost_usd=Decimal("NaN")), False),
    (records.DeliveryAttempt(1, "out", "x", 1 << 31, 1), False),
    (records.DeliveryAttempt(HUGE, "out", "x", 200, 1), False),
    (records.Rejection("r", "meter", HUGE), False),
    (records.Rejection("r", "meter", 1, offset=-2), False),
    (records.Rejection("r", "meter", 1), True),
    (records.WriteOff("a", 1, HUGE), False),
    (records.LagoEvent("", "s", "c", "1", "1", {}), False),
    (records.LagoEvent("t", "s", "c", "1", "", {}), True),
]


@pytest.mark.parametrize(("value", "sound"), BOUNDS, ids=repr)
def test_a_value_of_the_right_type_may_still_be_unreadable(value: Any, sound: bool) -> None:
    try:
        found = decoder(type(value))(msgspec.json.encode(value))
    except Unreadable:
        found = None
    assert (found is not None) is sound


def window(**changes: Any) -> bytes:
    sound = ledger.Window(7, 7, "acme", "user", "o", "s", "", "m", "p", (), 1, 1, 1, 1, count=1)
    return msgspec.msgpack.encode(msgspec.structs.replace(sound, **changes))


def snapshot(position: bytes | None = None, **state: bytes) -> Any:
    """From a changelog that has these windows, by the text of their offset, and a valid position."""
    latest: dict[bytes, bytes | None] = {POSITION_KEY: position or msgspec.msgpack.encode(ledger.Position(9))}
    latest |= {b"w" + int(first[1:]).to_bytes(8, "big"): value for first, value in state.items()}
    return latest


@pytest.mark.parametrize(
    "bad", [b"\xff", window(start_us=HUGE), window(max_end_us=-1), window(cost=Decimal("sNaN")), window(first=8)]
)
def test_an_unreadable_window_is_skipped_and_the_others_are_read(bad: bytes) -> None:
    state = LedgerState(ledger.Position())
    restore(state, snapshot_from(1, snapshot(w7=bad, w9=window(first=9))), 0)
    assert set(state.windows) == {9}


@pytest.mark.parametrize(
    "odd", [{b"i" + b"\0" * 16: b"x"}, {b"s" + b"\0" * 16: b"12345"}, {b"u" + b"\xff" * 16: b"y"}, {b"j" * 17: b"\xff"}]
)
def test_unreadable_identities_and_jobs_are_skipped(odd: dict[bytes, bytes]) -> None:
    state = LedgerState(ledger.Position())
    restore(state, snapshot_from(1, snapshot(w9=window(first=9)) | odd), 0)
    assert set(state.windows) == {9} and len(state.seen) == 0 and not state.jobs


@pytest.mark.parametrize(
    "position", [b"\xff", msgspec.msgpack.encode(ledger.Position(-1)), msgspec.msgpack.encode(ledger.Position(1, HUGE))]
)
def test_an_unreadable_position_halts_its_partition_and_does_not_end_the_process(position: bytes) -> None:
    with pytest.raises(LedgerBroken, match="unreadable_ledger"):
        restore(LedgerState(ledger.Position()), snapshot_from(1, snapshot(position)), 0)


@pytest.mark.parametrize("key", [b"", b"w", b"w123", b"s", b"i" * 3, None, b"\xff\xff"])
def test_an_unknown_key_in_the_changelog_is_skipped(key: Any) -> None:
    snapshot = snapshot_from(7, {key: b"x", POSITION_KEY: b"position"})
    assert (snapshot.next_offset, snapshot.position) == (7, b"position")
    assert (snapshot.windows, snapshot.seen) == ({}, {})


#: What is stored in topics; `Call` and `Position` too, which are inside of them.
STORED = {
    name
    for module in (records, customers, ledger)
    for name, of in vars(module).items()
    if isinstance(of, type) and issubclass(of, msgspec.Struct) and of.__module__ == module.__name__
} | {"RawRecord"}
#: The meter's own reading, which knows every kind of damage and reads what is left (streams/core/metering/read_usage.py).
MAY = {("streams/core/metering/read_usage.py", "RawRecord")}


def test_stored_records_are_read_only_by_the_common_decoders() -> None:
    found = set()
    for top in ("schemas", "streams", "connectors"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Decoder") and node.args:
                    found.add((str(path.relative_to(ROOT)), ast.unparse(node.args[0])))
    assert {one for one in found if one[1] in STORED} == MAY


def test_code_with_its_own_decoder_catches_every_error_of_decoding() -> None:
    """`DecodeError` alone misses `RecursionError` and `UnicodeDecodeError`: a body caused a 500 for that."""
    found = set()
    for top in ("schemas", "streams", "connectors"):
        for path in (ROOT / top).rglob("*.py"):
            text = path.read_text("utf-8")
            if path.name != "decoding.py" and re.search(r"msgspec\.(json|msgpack)\.(decode|Decoder)\b", text):
                handlers = (
                    node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ExceptHandler) and node.type
                )
                caught = {ast.unparse(node.type) for node in handlers if node.type}
                found |= {(str(path.relative_to(ROOT)), one) for one in caught if "msgspec.DecodeError" in one}
    assert found == set()


def test_an_old_record_is_read_as_before() -> None:
    assert decoder(CustomerRecord)(SOUND) == msgspec.json.decode(SOUND, type=CustomerRecord)
    assert json.loads(SOUND)["litellm_customer_id"] == "acme"
