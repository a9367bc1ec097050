"""Calls from files: a certain value is read, an uncertain one is refused with its line, its reason and its request id."""

import io
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.ingest.raw_record import strip
from connectors.ingest.rejection_record import InvalidElement
from connectors.operations import call_files
from connectors.operations.call_files import RefusedElement, csv_rows, json_lines, place_of, readable
from schemas.errors import Rejected
from schemas.policy import MeterPolicy
from schemas.rounding import quantum
from schemas.wire import FLAT, Call
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.decisions import OWN_SUBSCRIPTION, decide
from streams.core.metering.read_usage import usage_of
from tests.support.calls import NOON

NOW = "2026-11-28T10:03:00Z"


def table(text: str | bytes, **options: str) -> list[tuple[int, Any]]:
    """(line, element) or (line, reason, where, ids) of every row."""
    body = text.encode() if isinstance(text, str) else text
    return [_shown(line, element) for line, element in csv_rows(io.BytesIO(body), **options)]


def _shown(line: int, element: bytes) -> Any:
    found = json.loads(element)
    return (line, element.reason, element.detail, found) if isinstance(element, RefusedElement) else (line, found)


def test_ids_stay_text_numbers_keep_their_text_and_litellms_columns_become_fields() -> None:
    row = f"req-1,0012,0.10,15,{NOW},alice,True"
    [(line, element)] = csv_rows(
        io.BytesIO(f"request_id,team_id,spend,total_tokens,startTime,user,cache_hit\n{row}\n".encode())
    )
    call = msgspec.json.decode(element, type=Call)
    assert (line, call.id, call.team_id, call.spend, call.total_tokens) == (2, "req-1", "0012", Decimal("0.10"), 15)
    assert (call.startTime, call.user_id, call.cache_hit) == (NOW, "alice", True)
    assert b'"spend":0.10' in element


@pytest.mark.parametrize("number", ["0_5", "1_000", "1,5", "$0.5", "NaN", "inf", "0x1", "٣", "1.5.5", "--1"])
def test_an_amount_that_is_no_number_is_refused_with_its_column(number: str) -> None:
    assert table(f'request_id,spend\nreq-1,"{number}"\n') == [(2, "bad_number", "spend", {"id": "req-1"})]


@pytest.mark.parametrize("moment", ["11/28/2026 10:03", "28.11.2026 10:03", "46354.41875", "46354", "yesterday"])
def test_excels_dates_and_serial_numbers_are_refused_with_their_column(moment: str) -> None:
    assert table(f"request_id,startTime\nreq-1,{moment}\n") == [(2, "bad_time", "startTime", {"id": "req-1"})]


@pytest.mark.parametrize("moment", [NOW, "2026-11-28 10:03:00+00", "1795860180", "1795860180.5", "1795860180000"])
def test_unambiguous_timestamps_are_accepted(moment: str) -> None:
    assert table(f"request_id,startTime\nreq-1,{moment}\n") == [(2, {"id": "req-1", "startTime": moment})]


def test_an_id_that_a_spreadsheet_rounded_is_refused() -> None:
    assert table("request_id,end_user\n1.23457E+15,a\n") == [(2, "excel_value", "request_id", {"id": "1.23457E+15"})]


def test_a_damaged_row_is_refused_with_its_request_id_and_does_not_affect_the_others() -> None:
    found = table(f'request_id,model,startTime\nreq-1,5" disk,{NOW}\nreq-2,gpt,{NOW}\nreq-3,gpt\n')
    assert [(one[0], one[1] if len(one) > 2 else "taken", one[-1]["id"]) for one in found] == [
        (2, "stray_quote", "req-1"),
        (3, "taken", "req-2"),
        (4, "short_row", "req-3"),
    ]


def test_conversations_of_any_size_are_skipped() -> None:
    prompt = '"{""role"": ""user"", ""content"": ""' + "x" * 300_000 + '\nnew line""}"'
    assert table(f"request_id,messages,spend\nreq-1,{prompt},0.5\n") == [(2, {"id": "req-1", "spend": 0.5})]


def test_a_file_that_is_no_table_of_calls_is_refused_as_a_whole() -> None:
    for body, why in (("name,town\na,b\n", "has a known name"), ("request_id;spend\na;1\n", "--delimiter ';'")):
        with pytest.raises(Rejected, match=why):
            table(body)
    assert table("request_id;spend\na;1\n", delimiter=";") == [(2, {"id": "a", "spend": 1})]


def test_a_json_line_keeps_its_line_number_after_empty_and_too_long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_files, "_MAX_LINE", 50)
    body = b'{"id":"a"}\n\n' + b'{"id":"' + b"x" * 200 + b'"}\n{"id":"b"}'
    found = [_shown(line, element)[:2] for line, element in json_lines(io.BytesIO(body))]
    assert found == [(1, {"id": "a"}), (3, "line_too_long"), (4, {"id": "b"})]
    with pytest.raises(Rejected, match="UTF-16"):
        list(json_lines(io.BytesIO('{"id":"a"}\n'.encode("utf-16"))))


def test_a_refusal_names_its_line_request_and_field() -> None:
    [(_, element)] = csv_rows(io.BytesIO(b"request_id,spend\nreq-1,much\n"))
    with pytest.raises(InvalidElement, match="bad_number") as refused:
        readable(element)
    assert place_of("line 2", element, refused.value) == "line 2, request req-1 (spend)"
    assert place_of("line 2", b"{nonsense") == "line 2"
    assert readable(b"{}") == b"{}"


def test_the_metadata_column_says_whose_subscription_paid() -> None:
    """LiteLLM's table has it as JSON; earlier the column was skipped, and calls that a customer had paid directly were
    billed.
    """
    result = '{"used_client_oauth_token": true, "note": "' + "x" * 70_000 + '"}'
    cell = result.replace('"', '""')
    rows = f'request_id,startTime,end_user,spend,metadata\nr1,2026-11-20T12:00:00Z,acme,2,"{cell}"\n'
    ((_, element),) = csv_rows(io.BytesIO(rows.encode()))
    stripped = strip(element, FLAT, NOON, CUSTOMER_ID_FIELDS)
    assert stripped is not None
    usage = usage_of(stripped[1], stripped[0], quantum())
    assert decide(usage, MeterPolicy()) == OWN_SUBSCRIPTION and b"xxx" not in stripped[1]
