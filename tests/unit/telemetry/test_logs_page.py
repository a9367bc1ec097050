"""docs/logs.md has every event and field that the code logs, and nothing else."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from connectors.telemetry import logs_page
from connectors.telemetry.log_fields import COMMON, FIELDS
from connectors.telemetry.logs import REQUEST_ID, add_trace_ids, configure_logging, redact

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    add_trace_ids(None)
    structlog.reset_defaults()


def test_the_page_about_logs_is_current() -> None:
    assert (ROOT / "docs" / "logs.md").read_text("utf-8") == logs_page.logs_page(), (
        "python -m connectors.telemetry.logs_page > docs/logs.md"
    )


def test_a_field_that_is_not_described_or_not_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FIELDS, "waited_s")
    monkeypatch.setitem(FIELDS, "invented", FIELDS["usd"])
    with pytest.raises(KeyError) as odd:
        logs_page.logs_page()
    assert odd.value.args == ("invented", "waited_s")


def test_every_logger_of_the_product_is_read() -> None:
    """A logger under another kind of name, or a bound one, would be left out of the page."""
    read = {call.path for call in logs_page.log_calls()}
    texts = {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for folder in ("schemas", "streams", "connectors")
        for path in (ROOT / folder).rglob("*.py")
    }
    ours = {path for path in texts if not path.startswith(("connectors/sdk/", "connectors/litellm/plugin/"))}
    logging_ones = {path for path in ours if "structlog.get_logger(" in texts[path]} - {
        "connectors/telemetry/logs_page.py"
    }
    assert logging_ones == read
    for path in logging_ones:
        assert re.findall(r"^_?\w+ = structlog\.get_logger\(__name__\)$", texts[path], re.MULTILINE), path
        assert not re.search(r"\b(log|_log|_structured)\.(bind|new)\(", texts[path]), path


def test_the_names_that_stand_beside_the_code_are_names_in_the_code() -> None:
    texts = [
        path.read_text("utf-8")
        for folder in ("schemas", "streams", "connectors")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "logs_page.py"
    ]
    for name in {name for names in logs_page._EVENTS.values() for name in names}:
        assert any(f'"{name}"' in text for text in texts), name


@pytest.mark.parametrize("name", FIELDS)
def test_an_example_is_what_a_line_would_hold(name: str) -> None:
    """A name that looks like a secret's would be masked in every line."""
    assert redact(None, "", {name: FIELDS[name].example}) == {name: FIELDS[name].example}
    kind = {int: "number", float: "number", str: "text", list: "list", bool: "boolean"}[type(FIELDS[name].example)]
    assert kind in FIELDS[name].kind


def test_a_line_has_the_common_fields_of_its_situation() -> None:
    stream = io.StringIO()
    configure_logging("INFO", "json", stream)
    add_trace_ids(lambda: ("1" * 32, "2" * 16))
    token = REQUEST_ID.set("r")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        structlog.get_logger("x").exception("request_failed")
    REQUEST_ID.reset(token)
    [line] = map(json.loads, stream.getvalue().splitlines())
    assert line.keys() == COMMON.keys()
