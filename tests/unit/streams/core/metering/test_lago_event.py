"""The event of a window, field by field: what Lago reads, its properties, and the calls that it bills."""

from dataclasses import replace
from decimal import Decimal

from schemas.ledger import Window
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from schemas.wire import Metered
from streams.core.metering.lago_event import event_of, manifest_of, transaction_id
from tests.support.calls import NOON

POLICY = replace(MeterPolicy(), group_by=("team_id",))
PREFIX = "d-t-3-"
END = NOON + 30 * SECOND_US
WINDOW = Window(
    *(7, 9, "acme", "end_user", "org", "sub", "", "gpt-4o", "openai", ("ml",), NOON, 60 * SECOND_US, NOON + 1, END),
    count=3,
    tokens_input=20,
    tokens_output=46,
    total_tokens=66,
    cost=Decimal("0.0000145"),
    merged=(4, 5),
    group_names=("team_id",),
)


def window(**fields: object) -> Window:
    one = Window(*(getattr(WINDOW, name) for name in Window.__struct_fields__))
    for name, value in fields.items():
        setattr(one, name, value)
    return one


def test_each_field_of_a_window_is_in_its_place() -> None:
    event = event_of(WINDOW, PREFIX, END, POLICY)
    assert event.properties == {
        "unit": "66",
        "tokens_input": "20",
        "tokens_output": "46",
        "total_tokens": "66",
        "requests": "3",
        "cost_usd": "0.0000145",
        "model": "gpt-4o",
        "provider": "openai",
        "user_id": "acme",
        "org_id": "org",
        "window_start": "2026-11-20T12:00:00.000000Z",
        "window_end": "2026-11-20T12:01:00.000000Z",
        "team_id": "ml",
    }
    assert (event.transaction_id, event.external_subscription_id) == ("d-t-3-7", "sub")
    assert (event.code, event.timestamp) == ("ai_usage", f"{END // SECOND_US}.000")
    assert event.precise_total_amount_cents == "0.00145"


def test_the_unit_is_at_least_one_and_at_most_the_number_of_tokens() -> None:
    assert [event_of(window(total_tokens=tokens), PREFIX, END, POLICY).properties["unit"] for tokens in (0, 1, 2)] == [
        "1",
        "1",
        "2",
    ]


def test_only_an_event_billed_at_another_time_has_its_usage_end() -> None:
    moved = event_of(WINDOW, PREFIX, END + HOUR_US, POLICY)
    assert moved.timestamp == f"{(END + HOUR_US) // SECOND_US}.000"
    assert moved.properties["usage_end"] == "2026-11-20T12:00:30.000000Z"
    other = window(metered=Metered("org", "t", "seats", END, {"seats": "2"}), identity=b"i" * 16, cost=Decimal(0))
    assert "usage_end" not in event_of(other, PREFIX, END, POLICY).properties
    assert event_of(other, PREFIX, END + 1, POLICY).properties["usage_end"] == "2026-11-20T12:00:30.000000Z"


def test_a_single_call_has_its_identity_as_name_and_ends_with_the_call() -> None:
    alone = window(identity=b"\x01\xab" * 8, length_us=0, start_us=END)
    event = event_of(alone, PREFIX, END, POLICY)
    assert event.transaction_id == transaction_id(PREFIX, alone) == "01ab" * 8
    assert event.properties["window_start"] == event.properties["window_end"] == "2026-11-20T12:00:30.000000Z"
    assert event.properties["deployment"] == POLICY.deployment


def test_a_metered_event_keeps_its_code_and_its_properties() -> None:
    other = window(metered=Metered("org", "t", "seats", END, {"seats": "2"}), identity=b"i" * 16, cost=Decimal(0))
    event = event_of(other, PREFIX, END, POLICY)
    assert event.properties == {"transaction_id": "t", "seats": "2", "org_id": "org"}
    assert (event.code, event.precise_total_amount_cents, event.transaction_id) == ("seats", "0", (b"i" * 16).hex())


def test_a_manifest_names_every_billed_call() -> None:
    found = manifest_of(WINDOW, 3, "meterbridge")
    assert (found.partition, found.first, found.last, found.count) == (3, 7, 9, 3)
    assert tuple(found.windows) == (4, 5)
