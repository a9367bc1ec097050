"""The amount of a rejected call is the same wherever it is shown, also if it is what the call was rejected for."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from connectors.operations.dead_letters import CALLS, dead_letter_of
from connectors.postgres.rejected_cost import cost_of
from connectors.postgres.rows_of_calls import rejected_rows
from schemas.records import Rejection
from schemas.wire import Call, RawRecord

AT_US = 1_795_176_000_000_000
_COST = 6


def refused(stage: str, call: Call, reason: str = "absurd_cost") -> Rejection:
    kept: Any = RawRecord(1, "webhook", "flat", AT_US, "user", call) if stage == "meter" else call
    return Rejection(reason, stage, AT_US, call=msgspec.Raw(msgspec.json.encode(kept)))


def in_a_list(rejection: Rejection) -> Decimal | None:
    record: Any = SimpleNamespace(
        value=lambda: msgspec.json.encode(rejection),
        key=lambda: b"acme",
        headers=list,
        partition=lambda: 0,
        offset=lambda: 1,
        timestamp=lambda: (1, AT_US // 1000),
    )
    return dead_letter_of(CALLS, record).usd


def in_the_tables(rejection: Rejection) -> str | None:
    value = msgspec.json.encode(rejection)
    record: Any = SimpleNamespace(offset=1, key=b"acme", value=value, headers=(), timestamp=AT_US // 1000)
    [row] = rejected_rows([record]).rows
    cost: str | None = row[_COST]
    return cost


@pytest.mark.parametrize("stage", ["ingress", "meter"])
@pytest.mark.parametrize(
    ("fields", "usd"),
    [
        ({"cost_usd": Decimal(2_000_000)}, "2000000"),
        ({"cost": Decimal("-1.50")}, "-1.5"),
        ({"spend": Decimal("9.149999999999999e-06")}, "0.00000915"),
        ({"spend": Decimal("0.2"), "cost_usd": Decimal("0.01")}, "0.2"),
        ({"precise_total_amount_cents": Decimal(150)}, "1.5"),
        ({"cost_usd": Decimal("1e12")}, None),
        ({}, None),
    ],
)
def test_lists_and_tables_show_the_amount_that_was_refused(stage: str, fields: dict[str, Any], usd: str | None) -> None:
    """Earlier `reconcile` named 2,000,000 USD of a call of which `dlq dismiss` said 0 USD."""
    rejection = refused(stage, Call(id="1", endTime="2026-11-20T10:00:00Z", **fields))
    assert in_the_tables(rejection) == usd
    assert cost_of(rejection) == (None if usd is None else Decimal(usd))
    assert in_a_list(rejection) == cost_of(rejection)
