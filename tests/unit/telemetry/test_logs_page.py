"""docs/logs.md has every event and field that the code logs, and nothing else."""

import ast
import io
import json
import re
from pathlib import Path

import pytest
import structlog

from connectors.telemetry import logs_page
from connectors.telemetry.logs import REQUEST_ID, add_trace_ids, configure_logging, redact
from connectors.telemetry.logs_page import COMMON, FIELDS, MEANINGS

ROOT = Path(__file__).parents[3]


def test_the_page_about_logs_is_current() -> None:
    assert (ROOT / "docs" / "logs.md").read_text("utf-8") == logs_page.logs_page(), (
        "python -m connectors.telemetry.logs_page > docs/logs.md"
    )


def test_an_undescribed_or_unused_field_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {name: FIELDS[name] for name in FIELDS.keys() - {"waited_s"}}
    monkeypatch.setattr(logs_page, "FIELDS", fields | {"invented": FIELDS["usd"]})
    with pytest.raises(KeyError) as odd:
        logs_page.logs_page()
    assert odd.value.args == ("invented", "waited_s")


def test_an_event_without_a_meaning_and_a_meaning_without_an_event_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meanings = {event: MEANINGS[event] for event in MEANINGS.keys() - {"usage_held"}}
    monkeypatch.setattr(logs_page, "MEANINGS", meanings | {"invented": "It is invented."})
    with pytest.raises(KeyError) as odd:
        logs_page.logs_page()
    assert odd.value.args == ("invented", "usage_held")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('say = log.info; say("x")', "a logger's method is called under its own name"),
        ('log.log(level, "x")', "the level of `log` is written at the call"),
    ],
)
def test_a_call_that_the_page_would_leave_out_is_named(line: str, message: str) -> None:
    tree = ast.parse(f"log = structlog.get_logger(__name__)\n{line}")
    with pytest.raises(KeyError) as odd:
        list(logs_page._calls_of("x.py", tree))
    assert odd.value.args[-1] == message


def test_a_call_with_two_levels_is_listed_under_both() -> None:
    tree = ast.parse("log = structlog.get_logger(__name__)\nlog.log(logging.INFO if good else logging.ERROR, 'x')")
    assert [call.level for call in logs_page._calls_of("x.py", tree)] == ["info", "error"]


def test_the_fields_are_in_alphabetical_order() -> None:
    assert list(FIELDS) == sorted(FIELDS)


@pytest.mark.parametrize("event", MEANINGS)
def test_the_meaning_of_an_event_is_short(event: str) -> None:
    text = MEANINGS[event]
    assert text[0].isupper() or text[0] == "`", text
    assert text.endswith("."), text
    assert len(text.split()) <= 40, text
    assert "|" not in text, text


def test_only_the_page_loads_the_meanings() -> None:
    """No process may keep these texts in memory."""
    named = re.compile(r"^\s*(?:from|import) .*\blogs_page|log_(?:events|fields)\.toml\"", re.MULTILINE)
    naming = {
        path.name
        for folder in ("schemas", "streams", "connectors")
        for path in (ROOT / folder).rglob("*.py")
        if named.search(path.read_text("utf-8"))
    }
    assert naming == {"logs_page.py"}


def test_every_logger_of_the_product_is_read() -> None:
    """A logger in a variable of another name, or a bound one, would be left out of the page."""
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


def test_names_listed_beside_the_code_exist_in_the_code() -> None:
    texts = [
        path.read_text("utf-8")
        for folder in ("schemas", "streams", "connectors")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "logs_page.py"
    ]
    for name in {name for names in logs_page._EVENTS.values() for name in names}:
        assert any(f'"{name}"' in text for text in texts), name


@pytest.mark.parametrize("name", FIELDS)
def test_an_example_has_its_type_and_is_not_masked(name: str) -> None:
    """A name that looks like a secret's would be masked in every line."""
    assert redact(None, "", {name: FIELDS[name].example}) == {name: FIELDS[name].example}
    kind = {int: "number", float: "number", str: "text", list: "list", bool: "boolean"}[type(FIELDS[name].example)]
    assert kind in FIELDS[name].kind


def test_examples_that_are_no_texts_are_json() -> None:
    rows = [line.split(" | ") for line in logs_page.logs_page().splitlines() if line.startswith("| `")]
    examples = [(cells[1], cells[3].strip("`")) for cells in rows if len(cells) == 5]
    others = [(kind, example) for kind, example in examples if kind in ("boolean", "number", "list")]
    assert ("boolean", "false") in others
    for _, example in others:
        json.loads(example)


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
