"""What failed attempts have cost is read from LiteLLM's breakdown, and nothing else of its additional costs is stored."""

import csv
import io
import json
from decimal import Decimal
from typing import Any

import pytest

from connectors.ingest.raw_record import strip
from connectors.litellm.plugin.meterbridge_litellm.record import record
from connectors.operations.call_files import csv_rows, json_lines
from schemas.normalised_call import Usage
from schemas.rounding import quantum
from schemas.wire import BACKFILL, FLAT
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.read_usage import usage_of
from tests.support.calls import NOON

#: As a router of LiteLLM 1.110.2 reports a stream that a fallback has continued.
CONTINUED: dict[str, Any] = {
    "id": "chatcmpl-A1",
    "litellm_call_id": "call-x",
    "status": "success",
    "end_user": "acme",
    "startTime": NOON / 1e6 - 1,
    "endTime": NOON / 1e6,
    "total_tokens": 99,
    "response_cost": 0.00459,
    "cost_breakdown": {"total_cost": 0.00459, "additional_costs": {"mid_stream_partial_cost": 0.00209, "canary": "c"}},
}


def read(element: bytes, shape: str = "slp", source: str = "webhook") -> tuple[Usage, bytes]:
    stored = strip(element, shape, NOON, CUSTOMER_ID_FIELDS, source)
    assert stored is not None
    return usage_of(stored[1], stored[0], quantum()), stored[1]


def with_costs(additional: Any, **more: Any) -> bytes:
    breakdown = {"total_cost": 0.00459, "additional_costs": additional}
    return json.dumps({**CONTINUED, **more, "cost_breakdown": breakdown}).encode()


@pytest.mark.parametrize("odd", [{}, {"total_tokens": "99"}], ids=["sound", "field by field"])
@pytest.mark.parametrize("by_plugin", [False, True])
def test_the_cost_of_failed_attempts_is_read_from_the_breakdown(odd: dict[str, Any], by_plugin: bool) -> None:
    payload = {**CONTINUED, **odd}
    usage, value = read(record(payload) if by_plugin else json.dumps(payload).encode())
    assert (usage.cost, usage.carried) == (Decimal("0.00459"), Decimal("0.00209"))
    assert b"canary" not in value
    assert b"additional_costs" not in value


@pytest.mark.parametrize("odd", [{}, {"total_tokens": "99"}], ids=["sound", "field by field"])
@pytest.mark.parametrize("detail", ['"mid_stream_partial_cost": 1e-999999', '"failed_attempts_cost": 1e-30'])
def test_a_call_is_not_refused_for_a_tiny_amount(odd: dict[str, Any], detail: str) -> None:
    """Written out, it was longer than a record may be."""
    element = with_costs({"other": 1}, **odd).replace(b'"other": 1', detail.encode())
    usage, value = read(element)
    assert (usage.cost, usage.carried, len(value) < 1000) == (Decimal("0.00459"), Decimal(0), True)


@pytest.mark.parametrize("odd", [{}, {"total_tokens": "99"}], ids=["sound", "field by field"])
def test_both_kinds_of_attempts_are_added(odd: dict[str, Any]) -> None:
    costs = {"mid_stream_partial_cost": 0.002, "failed_attempts_cost": 1e-3}
    assert read(with_costs(costs, **odd))[0].carried == Decimal("0.003")


@pytest.mark.parametrize(
    "costs",
    [
        None,
        [],
        "x",
        {},
        {"mid_stream_partial_cost": None},
        {"mid_stream_partial_cost": "x"},
        {"mid_stream_partial_cost": -1},
        {"mid_stream_partial_cost": 5},
        {"mid_stream_partial_cost": float("nan")},
        {"failed_attempts_cost": 10**400},
        {"other": 0.002},
    ],
)
def test_anything_else_changes_nothing(costs: Any) -> None:
    usage, value = read(with_costs(costs))
    assert (usage.cost, usage.carried) == (Decimal("0.00459"), Decimal(0))
    assert b"additional_costs" not in value


@pytest.mark.parametrize("carried", ["abc", -1, [], {}, True, "1e999999999"])
def test_an_unreadable_part_never_rejects_the_call(carried: Any) -> None:
    usage, _ = read(json.dumps({**CONTINUED, "cost_breakdown": None, "carried_cost": carried}).encode())
    assert (usage.cost, usage.carried) == (Decimal("0.00459"), Decimal(0))


#: As LiteLLM's table has the same call: the breakdown is in the metadata.
ROW: dict[str, Any] = {
    "request_id": "chatcmpl-A1",
    "end_user": "acme",
    "spend": 0.00459,
    "startTime": "2026-11-20T12:00:00Z",
    "total_tokens": 99,
}
NOTES = {"cost_breakdown": CONTINUED["cost_breakdown"], "note": "canary"}


def exported(form: str, notes: dict[str, Any], **more: Any) -> bytes:
    """Return the element of a file with one row: JSONL with the metadata as an object or as text, or CSV."""
    row = {**ROW, **more, "metadata": notes if form == "object" else json.dumps(notes)}
    if form != "csv":
        return next(json_lines(io.BytesIO(json.dumps(row).encode())))[1]
    file = io.StringIO()
    writer = csv.DictWriter(file, row)
    writer.writeheader()
    writer.writerow(row)
    return next(csv_rows(io.BytesIO(file.getvalue().encode())))[1]


@pytest.mark.parametrize("form", ["object", "text", "csv"])
def test_an_export_of_litellms_table_has_the_cost_of_failed_attempts_in_its_metadata(form: str) -> None:
    usage, value = read(exported(form, NOTES), FLAT, BACKFILL)
    assert (usage.cost, usage.carried) == (Decimal("0.00459"), Decimal("0.00209"))
    assert b'"carried_cost":"0.00209"' in value
    assert b"canary" not in value
    assert b"additional_costs" not in value


@pytest.mark.parametrize("form", ["object", "text"])
@pytest.mark.parametrize(
    "more", [{"cost_breakdown": None}, {"total_tokens": "99"}, {"completion_tokens": float("nan")}]
)
def test_it_is_also_read_from_a_row_that_is_read_field_by_field(form: str, more: dict[str, Any]) -> None:
    assert read(exported(form, NOTES, **more), FLAT, BACKFILL)[0].carried == Decimal("0.00209")


@pytest.mark.parametrize("form", ["object", "text"])
def test_a_breakdown_beside_the_metadata_counts_before_one_in_it(form: str) -> None:
    own = {"additional_costs": {"failed_attempts_cost": 0.001}}
    assert read(exported(form, NOTES, cost_breakdown=own), FLAT, BACKFILL)[0].carried == Decimal("0.001")


@pytest.mark.parametrize("form", ["object", "text"])
def test_the_metadata_of_a_webhook_has_no_breakdown(form: str) -> None:
    assert read(exported(form, NOTES), FLAT)[0].carried == Decimal(0)


@pytest.mark.parametrize("form", ["object", "text", "csv"])
@pytest.mark.parametrize("costs", [None, "x", [], 1, {}, {"total_cost": "x"}, {"additional_costs": "x"}])
def test_an_odd_breakdown_in_the_metadata_never_rejects_a_row(form: str, costs: Any) -> None:
    usage, _ = read(exported(form, {"cost_breakdown": costs}), FLAT, BACKFILL)
    assert (usage.cost, usage.carried) == (Decimal("0.00459"), Decimal(0))
