"""A damaged record in any topic costs itself: each reader counts or says it, and goes on to the next one."""

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import receipts, rejected
from connectors.postgres import rows, rows_of_management
from schemas import customers, ledger, records, wire
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.decoding import Unreadable, decoder
from streams.agents import meter, sink
from streams.changelog import POSITION_KEY, image_from
from streams.followers import Follower

ROOT = Path(__file__).parents[2]
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


@dataclass
class Stored:
    """What every reader wants of a Kafka record."""

    value: bytes | None
    key: bytes | None = b"acme"
    headers: list[tuple[str, Any]] = field(default_factory=list)
    offset: int = 0
    timestamp: int = 1
    partition: int = 0


@given(st.binary() | st.text().map(str.encode) | st.sampled_from(GARBAGE))
def test_whatever_is_read_is_sound_or_unreadable(value: bytes | None) -> None:
    for of in (records.LagoEvent, records.Receipt, records.Rejection, wire.RawRecord, CustomerRecord, OrgRecord):
        try:
            found = decoder(of)(value)
        except Unreadable as damage:
            found, told = None, str(damage)
        assert isinstance(found, of) or told.isidentifier(), "the error's kind, and nothing of the record"


@pytest.mark.parametrize(
    ("of", "bad", "good"), [(CustomerRecord, CUSTOMERS, SOUND), (OrgRecord, ORGS, b'{"org_id":"org"}')]
)
def test_a_table_keeps_what_it_knows_and_goes_on(of: type[Any], bad: list[bytes], good: bytes) -> None:
    follower = Follower({}, "topic", of, lambda: 0.0, "table")
    follower.take(0, [Stored(good)])  # type: ignore[list-item]
    for value in [*(one for one in GARBAGE if one is not None), *bad]:
        follower.take(0, [Stored(value), Stored(good, b"next")])  # type: ignore[list-item]
        assert set(follower.table) == {"acme", "next"}, value[:40]


Read = Callable[[Any], Any]


@pytest.mark.parametrize("read", [receipts._read, sink._event, meter._order], ids=["receipts", "events", "orders"])
@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: repr(value)[:24])
def test_a_damaged_value_is_nothing(read: Read, value: bytes | None) -> None:
    headers = [("control", b"write_off")]
    assert read(Stored(value, headers=headers)) is None


@pytest.mark.parametrize("manifest", GARBAGE, ids=lambda value: repr(value)[:24])
def test_a_damaged_manifest_is_none(manifest: bytes | None) -> None:
    assert sink._manifest(Stored(b"{}", headers=[("manifest", manifest)])) is None  # type: ignore[arg-type]


def test_refusals_are_counted_past_a_damaged_one() -> None:
    follower = rejected.RejectedFollower({}, "topic", lambda: 0.0)
    sound = msgspec.json.encode(records.Rejection("malformed", "meter", 0))
    follower.take(0, [*(Stored(value) for value in GARBAGE), Stored(sound)])  # type: ignore[misc]
    assert dict(follower._counts) == {"malformed": 1}


@pytest.mark.parametrize(
    ("rows_of", "bad"),
    [
        (rows.usage_rows, []),
        (rows.rejected_rows, []),
        (rows.event_rows, []),
        (rows.receipt_rows, []),
        (rows_of_management.customer_rows, CUSTOMERS),
        (rows_of_management.org_rows, ORGS),
        (rows_of_management.audit_rows, []),
        (rows_of_management.delivery_rows, []),
    ],
)
def test_the_projector_counts_what_it_cannot_read(rows_of: Callable[[Any], Any], bad: list[bytes]) -> None:
    values = [value for value in GARBAGE if value is not None] + bad
    told = rows_of([Stored(value) for value in values])
    assert (told.rows, told.unreadable) == ([], len(values))


@pytest.mark.parametrize("cost", ["1e999999999", "-1e999999999", "1e-999999999", "1e5"])
def test_a_cost_of_any_exponent_is_a_row_without_or_with_it(cost: str) -> None:
    """`abs` of the first ended the projector for good."""
    call = (
        b'{"v":1,"source":"webhook","shape":"flat","received_at":1,"id_kind":"user","call":{"spend":%b}}'
        % cost.encode()
    )
    rejection = b'{"at":1,"stage":"meter","reason":"absurd_cost","detail":"","offset":3,"call":%b}' % call
    told = rows.rejected_rows([Stored(rejection)])
    assert told.unreadable == 0
    assert told.rows[0][6] == ("100000" if cost == "1e5" else None)


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
    for rows_of in (rows.rejected_rows, rows.event_rows):
        told = rows_of([Stored(event, headers=headers)])
        assert len(told.rows) + told.unreadable == 1


@pytest.mark.parametrize("key", [b"", b"w", b"w123", b"s", b"i" * 3, None, b"\xff\xff"])
def test_a_foreign_key_in_the_changelog_is_passed(key: Any) -> None:
    image = image_from(7, {key: b"x", POSITION_KEY: b"position"})
    assert (image.next_offset, image.position) == (7, b"position")
    assert (image.windows, image.seen) == ({}, {})


#: What is stored in topics; `Call` and `Position` too, which are inside of them.
STORED = {
    name
    for module in (records, customers, ledger)
    for name, of in vars(module).items()
    if isinstance(of, type) and issubclass(of, msgspec.Struct) and of.__module__ == module.__name__
} | {"RawRecord"}
#: The meter's own reading, which knows every kind of damage and reads what is left (streams/core/reading.py).
MAY = {("streams/core/reading.py", "RawRecord")}


def test_no_reader_of_stored_records_has_a_decoder_of_its_own() -> None:
    found = set()
    for top in ("schemas", "streams", "connectors"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Decoder") and node.args:
                    found.add((str(path.relative_to(ROOT)), ast.unparse(node.args[0])))
    assert {one for one in found if one[1] in STORED} == MAY


def test_what_decodes_by_itself_catches_all_that_decoding_raises() -> None:
    """`DecodeError` alone lets `RecursionError` and `UnicodeDecodeError` through: a body was a 500 for it."""
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
