"""Text from other people cannot control an operator's terminal: markup, escapes, bidirectional marks, forged lines."""

import io
import json
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from connectors.cli import base, sentences
from connectors.telemetry.logs import configure_logging
from connectors.telemetry.printable import shown, shown_json

HOSTILE = "[/x][bold]:x:\x1b]0;pwn\x07\x1b[31m\u202eabc\u2066\x9b31m\nforged  1  USD\r"


def steers(text: str) -> list[str]:
    return [sign for sign in text if sign != "\n" and (not sign.isprintable() or 0x202A <= ord(sign) <= 0x202E)]


@given(st.text())
def test_every_control_sequence_is_removed_and_nothing_else_is_changed(text: str) -> None:
    result = shown(text)
    assert "\x1b" not in result
    assert "\n" not in result
    assert "\u202e" not in result
    if text.isascii() and text.isprintable():
        assert result == text


def test_letters_of_all_scripts_are_kept() -> None:
    for text in ("Zoë", "株式会社", "مثال", "Ελλάδα", "emoji 🙂"):
        assert shown(text) == text


@given(
    st.recursive(
        st.text() | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_keeps_its_meaning(value: Any) -> None:
    for indent in (None, 2):
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        assert json.loads(shown_json(text)) == value


def test_a_table_shows_a_malicious_customer_id_unchanged_in_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    """In an earlier version `[/x]` ended `held list` with a traceback."""
    table = base.table_of(("customer", "USD"), [(HOSTILE, "1"), ("acme", "2")], title=f"held of {HOSTILE}")
    base.say({}, as_json=False, table=lambda: table)
    out = capsys.readouterr().out
    assert not steers(out)
    assert "[/x][bold]:x:" in out
    assert len([line for line in out.splitlines() if line.rstrip().endswith(("1", "2"))]) == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_an_answer_shows_it_unchanged(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    base.say({"customer": HOSTILE}, as_json=as_json, table=lambda: f"{HOSTILE} pays")
    out = capsys.readouterr().out
    assert not steers(out)
    if as_json:
        assert json.loads(out) == {"customer": HOSTILE}


def test_a_message_on_stderr_shows_it_unchanged_too(capsys: pytest.CaptureFixture[str]) -> None:
    sentences.print_error(f"no customer {HOSTILE}")
    assert not steers(capsys.readouterr().err)


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_log_line_is_one_line(style: Any) -> None:
    stream = io.StringIO()
    configure_logging("INFO", style, stream)
    structlog.get_logger("tests").warning(
        "customer_unmapped", customer="\x1b[31mx\u202e", other=HOSTILE, several=[HOSTILE]
    )
    assert not steers(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
