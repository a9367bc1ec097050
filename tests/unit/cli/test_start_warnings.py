"""A worker that starts without Lago's key logs it at once."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from connectors.cli import worker as worker_module
from connectors.cli.worker import warn_of_missing
from connectors.config.settings import Settings
from connectors.processes.api_access import ApiAccess

WITH_KEY = Settings(lago_api_key=SecretStr("a-key"))


def warned(settings: Settings, *roles: str) -> list[tuple[str, str]]:
    with capture_logs() as lines:
        warn_of_missing(settings, roles)
    assert all(line["log_level"] == "warning" for line in lines)
    return [(line["event"], line["detail"].partition(" ")[0]) for line in lines]


@pytest.mark.parametrize("role", ["sink", "retry"])
def test_the_warning_names_the_setting_of_the_missing_lago_key(role: str) -> None:
    assert warned(Settings(), "meter", role) == [("lago_key_not_set", "LAGO_API_KEY")]
    assert warned(WITH_KEY, "meter", role) == []
    assert warned(Settings(), "meter", "project") == []


def test_a_worker_logs_the_warning_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(worker_module, "settings_of_command", lambda **_: Settings())
    monkeypatch.setattr(worker_module, "warn_of_missing", lambda settings, roles: order.append("warned"))
    monkeypatch.setattr(worker_module, "run_worker", lambda *given: order.append("ran"))
    with pytest.raises(SystemExit):
        worker_module.worker("sink")
    assert order == ["warned", "ran"]


@pytest.mark.parametrize(
    ("settings", "ring", "event", "named"),
    [
        (Settings(), object(), "master_key_not_set", "`meterbridge keys create`"),
        (WITH_KEY, None, "master_key_not_set", "LAGO_API_KEY at /api/customers and /api/billing"),
        (Settings(), None, "management_closed", "every request is answered 401"),
    ],
)
def test_an_api_without_a_master_key_logs_which_credentials_it_accepts(
    settings: Settings, ring: object, event: str, named: str
) -> None:
    access: Any = SimpleNamespace(_settings=settings, _ring=ring, _users=None)
    with capture_logs() as lines:
        ApiAccess._warn_of_no_master_key(access)
    [line] = lines
    assert (line["event"], line["log_level"]) == (event, "warning")
    assert named in line["detail"] and "LITELLM_MASTER_KEY" in line["detail"]
