"""What a command does with its environment: logging as set, and a warning about each unknown name that resembles a
setting.
"""

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


def log_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **environ: str) -> list[str]:
    """Log lines of a command that logs three things."""
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
def test_log_level_decides_which_lines_are_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str, events: list[str]
) -> None:
    lines = log_lines(monkeypatch, capsys, LOG_LEVEL=level)
    assert [json.loads(line)["event"] for line in lines] == events
    assert logging.getLogger().level == getattr(logging, (level or "info").upper())


def test_log_format_decides_the_form_of_the_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(log_lines(monkeypatch, capsys)[-1])["partition"] == 3
    line = log_lines(monkeypatch, capsys, LOG_FORMAT="console")[-1]
    assert not line.startswith("{")
    assert "gone_wrong" in line and "partition=3" in line


def test_each_of_lagos_own_variables_causes_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in log_lines(monkeypatch, capsys, **dict.fromkeys(LAGOS_OWN, "canary"))]
    result = [(one["level"], one["variable"]) for one in lines if one["event"] == "setting_unknown"]
    assert result == [("warning", name) for name in LAGOS_OWN]
    assert "canary" not in str(lines)


def test_a_misspelt_variable_is_reported_with_the_intended_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = json.loads(log_lines(monkeypatch, capsys, WEBHOOK_TOKENS="canary")[0])
    assert (first["event"], first["variable"], first["did_you_mean"]) == (
        *("setting_unknown", "WEBHOOK_TOKENS"),
        "WEBHOOK_TOKEN",
    )
