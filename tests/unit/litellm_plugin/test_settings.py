"""A wrong setting of the plugin stops the proxy at its start; the message has its name, not its value."""

from dataclasses import fields
from decimal import Decimal
from pathlib import Path

import pytest

import meterbridge_litellm
from meterbridge_litellm.settings import PluginSettings

NEEDED = {"METERBRIDGE_URL": "http://m", "METERBRIDGE_RING_PATH": "/ring", "METERBRIDGE_SECRET": "the-secret"}
PAGE = Path(__file__).parents[3] / "docs" / "litellm-plugin.md"


def test_three_variables_are_sufficient() -> None:
    created = PluginSettings.of(NEEDED)
    assert (created.url, created.ring_path, created.secret, created.authorize) == (
        "http://m",
        "/ring",
        "the-secret",
        "off",
    )


def test_each_setting_is_read_from_its_variable_with_its_type() -> None:
    created = PluginSettings.of({**NEEDED, "METERBRIDGE_FAIL_OPEN_USD": "2.50", "METERBRIDGE_ANSWER_WAIT": "0.1"})
    assert created.fail_open_usd == Decimal("2.50")
    assert created.answer_wait == 0.1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"METERBRIDGE_URL": ""}, "METERBRIDGE_URL"),
        ({"METERBRIDGE_RING_PATH": " "}, "METERBRIDGE_RING_PATH"),
        ({"METERBRIDGE_SECRET": ""}, "METERBRIDGE_TOKEN"),
        ({"METERBRIDGE_RING_MAX_BYTES": "much"}, "METERBRIDGE_RING_MAX_BYTES"),
        ({"METERBRIDGE_RING_MAX_BYTES": "1"}, "METERBRIDGE_RING_MAX_BYTES must be between 4194304 and"),
        ({"METERBRIDGE_URL": "localhost:8080"}, "METERBRIDGE_URL must be an address such as http://ingress:8080"),
        ({"METERBRIDGE_URL": "http://m:port"}, "METERBRIDGE_URL must be an address"),
        (
            {"METERBRIDGE_URL": "http://m/webhook/litellm/usage"},
            "METERBRIDGE_URL must be an address .* without /webhook",
        ),
        ({"METERBRIDGE_API_URL": "api.example"}, "METERBRIDGE_API_URL must be an address"),
        ({"METERBRIDGE_TOKEN": "Bearer abcdef"}, "METERBRIDGE_TOKEN must be one line of ASCII, without Bearer"),
        ({"METERBRIDGE_API_KEY": "a\nb: cdef"}, "METERBRIDGE_API_KEY must be one line"),
        ({"METERBRIDGE_KEEP": "tags,meta-data"}, "METERBRIDGE_KEEP must be tags or metadata"),
        ({"METERBRIDGE_ASIDE_MAX_BYTES": "-5000"}, "METERBRIDGE_ASIDE_MAX_BYTES must be between 0 and"),
        ({"METERBRIDGE_ESTIMATE_USD": "sNaN"}, "METERBRIDGE_ESTIMATE_USD must be between 0 and 1000000000 dollars"),
        *(
            ({f"METERBRIDGE_{name}": wrong}, f"METERBRIDGE_{name} must be between")
            for name in ("ANSWER_WAIT", "FLUSH_SECONDS", "STOP_SECONDS", "POST_TIMEOUT", "API_TIMEOUT", "FAIL_OPEN_USD")
            for wrong in ("-0.5", "nan", "1e99")
        ),
        ({"METERBRIDGE_ESTIMATE_USD": "cheap"}, "METERBRIDGE_ESTIMATE_USD"),
        ({"METERBRIDGE_ANSWER_AFTER": "soon"}, "METERBRIDGE_ANSWER_AFTER must be one of fsync"),
        ({"METERBRIDGE_RESERVE_SECONDS": "86401"}, "METERBRIDGE_RESERVE_SECONDS must be between 1 and 86400 seconds"),
        ({"METERBRIDGE_FAIL": "maybe"}, "METERBRIDGE_FAIL"),
        ({"METERBRIDGE_AUTHORIZE": "on"}, "METERBRIDGE_API_KEY"),
    ],
)
def test_a_missing_or_wrong_variable_is_named_without_its_value(change: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named) as result:
        PluginSettings.of({**NEEDED, **change})
    assert "the-secret" not in str(result.value)
    assert not [value for value in change.values() if len(value) > 3 and value in str(result.value)]


@pytest.mark.parametrize(
    "url", ["https://m.example", "http://127.0.0.1:8080/", "http://proxy/billing", "http://[::1]:80"]
)
def test_an_address_with_a_port_or_a_prefix_is_taken(url: str) -> None:
    assert PluginSettings.of({**NEEDED, "METERBRIDGE_URL": url}).url == url


def test_a_folder_that_cannot_be_made_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an earlier version the proxy ended with `FileNotFoundError: '/proc/ring'`."""
    for name, value in {**NEEDED, "METERBRIDGE_RING_PATH": "/proc/ring"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="METERBRIDGE_RING_PATH must be a folder that this process can make") as result:
        _ = meterbridge_litellm.handler
    assert "/proc/ring" not in str(result.value)


def test_the_page_has_every_variable_with_its_default() -> None:
    rows = {
        line.split("|")[1].strip(" `"): line
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `METERBRIDGE_")
    }
    assert rows.keys() == {f"METERBRIDGE_{field.name.upper()}" for field in fields(PluginSettings)}


def test_the_handler_needs_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METERBRIDGE_URL", raising=False)
    with pytest.raises(ValueError, match="METERBRIDGE_URL"):
        _ = meterbridge_litellm.handler
    with pytest.raises(AttributeError):
        _ = meterbridge_litellm.nothing
