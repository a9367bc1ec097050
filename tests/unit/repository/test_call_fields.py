"""The fields of a call on docs/ingress.md and the lines of files on docs/stuck-usage.md are what the reader takes."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from connectors.api.openapi.usage_bodies import TEXTS
from connectors.ingest.raw_record import strip
from connectors.operations.dead_letters import usage_of
from schemas.decoding import decoder
from schemas.rounding import quantum
from schemas.wire import BACKFILL, Call, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS

DOCS = Path(__file__).parents[3] / "docs"
RECEIVED_US = 1_800_000_000_000_000
END = datetime(2026, 11, 20, 10, 3, 27, tzinfo=UTC)
_raw = decoder(RawRecord)


def chapter(page: str, heading: str) -> str:
    _, found, rest = (DOCS / page).read_text("utf-8").partition(f"# {heading}\n")
    assert found
    return re.split(r"^##+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


OWN = chapter("ingress.md", "The fields of a call of your own")
FIELDS = {name for row in re.findall(r"^\| (`.*?) \|", OWN, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
REQUIRED = set(re.findall(r"^\| `(\w+)` \| yes ", OWN, re.MULTILINE))
LINES = [line for line in chapter("stuck-usage.md", "Lines of a file").splitlines() if line.startswith("{")]
[EXAMPLE] = [line for line in OWN.splitlines() if line.startswith("{")]


def stored(line: str, otherwise: str = "flat") -> tuple[str, bytes]:
    found = strip(line.encode(), otherwise, RECEIVED_US, CUSTOMER_ID_FIELDS, BACKFILL)
    assert found is not None
    return found


def test_the_table_has_each_field_of_the_description_of_the_api_and_no_other_than_the_reader_knows() -> None:
    described = TEXTS.schemas["sent_by_hand"]
    assert described["properties"].keys() - FIELDS == set()
    assert FIELDS - set(Call.__struct_fields__) == set()
    assert set(described["required"]) == REQUIRED


def test_a_field_of_another_name_is_ignored() -> None:
    value = stored(EXAMPLE.replace('"timestamp"', '"end_time"'), "integration")[1]
    assert b"end_time" not in value
    assert json.loads(value).get("note", "") == ""


@pytest.mark.parametrize(
    ("line", "shape"), zip((*LINES, EXAMPLE), ("flat", "slp", "integration", "integration"), strict=True)
)
def test_an_example_is_read_as_the_page_says(line: str, shape: str) -> None:
    customer, value = stored(line)
    usage = usage_of(value, customer, quantum())
    assert _raw(value).shape == shape
    assert usage is not None
    assert (usage.customer_id, usage.model, usage.status) == ("acme", "gpt-4o", "success")
    assert (usage.cost, usage.tokens_input, usage.tokens_output) == (Decimal("0.0123"), 100, 20)
    assert datetime.fromtimestamp(usage.end_us / 1_000_000, UTC) == END


def test_each_line_has_only_fields_that_are_read() -> None:
    for line in (*LINES, EXAMPLE):
        assert json.loads(line).keys() - set(Call.__struct_fields__) == set()
