"""What a command does about its environment: logs as it says, and a word about each name that looks like ours."""

import json
import logging

import pytest
import structlog

from connectors.cli.running import settings_of_command

#: Lago's own, set where ours run too: compose files hand one file to all.
LAGOS_OWN = (
    *("LAGO_FRONT_URL", "LAGO_LICENSE", "LAGO_PUBLIC_URL"),
    *("LAGO_SMTP_ADDRESS", "LAGO_SMTP_PASSWORD", "LAGO_SMTP_USERNAME"),
)


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **environ: str) -> list[str]:
    """Lines of the log of a command that says three things."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings_of_command()
    log = structlog.get_logger("ours")
    log.debug("in_detail")
    log.info("as_usual")
    log.error("gone_wrong", partition=3)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("", ["as_usual", "gone_wrong"]),
        ("debug", ["in_detail", "as_usual", "gone_wrong"]),
        ("ERROR", ["gone_wrong"]),
    ],
)
def test_log_level_says_which_lines_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str, events: list[str]
) -> None:
    lines = said(monkeypatch, capsys, LOG_LEVEL=level)
    assert [json.loads(line)["event"] for line in lines] == events
    assert logging.getLogger().level == getattr(logging, (level or "info").upper())


def test_log_format_says_how_lines_look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(said(monkeypatch, capsys)[-1])["partition"] == 3
    line = said(monkeypatch, capsys, LOG_FORMAT="console")[-1]
    assert not line.startswith("{")
    assert "gone_wrong" in line and "partition=3" in line


def test_each_variable_of_lagos_own_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in said(monkeypatch, capsys, **dict.fromkeys(LAGOS_OWN, "canary"))]
    told = [(one["level"], one["variable"]) for one in lines if one["event"] == "setting_unknown"]
    assert told == [("warning", name) for name in LAGOS_OWN]
    assert "canary" not in str(lines)


def test_a_misspelt_variable_is_told_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = json.loads(said(monkeypatch, capsys, WEBHOOK_TOKENS="canary")[0])
    assert (first["event"], first["variable"], first["did_you_mean"]) == (
        *("setting_unknown", "WEBHOOK_TOKENS"),
        "WEBHOOK_TOKEN",
    )
