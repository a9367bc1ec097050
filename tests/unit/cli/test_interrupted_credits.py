"""`meterbridge credits` when Postgres does not confirm: the command says how to repeat it without moving credits twice."""

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.cli import credits as command
from connectors.cli.main import app
from connectors.config.settings import load_settings
from connectors.operations.known_ids import KnownId
from schemas.errors import Unavailable

URL = "postgresql://localhost:1/none"


def ends_with(error: BaseException) -> Callable[..., Any]:
    async def move(*_: Any, **__: Any) -> None:
        raise error

    return move


def knows(account: dict[str, Any] | None) -> Callable[..., Any]:
    async def balance(*_: Any) -> dict[str, Any] | None:
        return account

    return balance


@pytest.mark.parametrize("error", [Unavailable("postgres_away", "ConnectionResetError"), KeyboardInterrupt()])
@pytest.mark.parametrize("words", [("grant", "user:ada", "25"), ("refund", "user:ada", "25")])
@pytest.mark.parametrize("key", [None, "invoice-7"])
def test_the_key_is_named_under_which_a_repeat_moves_the_credits_once(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, words: tuple[str, ...], key: str | None
) -> None:
    monkeypatch.setattr(command, "settings_of_command", lambda: load_settings({"DATABASE_URL": URL}))
    monkeypatch.setattr(command, "CommandProducer", lambda _kafka: None)
    targets: list[dict[str, str]] = []
    monkeypatch.setattr(command, "audited", lambda *given, **_: targets.append(given[3]))
    monkeypatch.setattr(command, "balance_of", knows({"grants": []}))
    monkeypatch.setattr(command, "ask_database", lambda *_: KnownId(known=True))
    monkeypatch.setattr(command, "add_credits", ends_with(error))
    more = () if key is None else ("--key", key)
    result = CliRunner().invoke(app, ["credits", *words, *more], env={"COLUMNS": "200", "DATABASE_URL": URL})
    (target,) = targets
    assert result.exit_code != 0 and key in (None, target["key"])
    assert f"Repeat with --key {target['key']}, which moves them once." in result.output


def test_a_refund_of_an_account_that_does_not_exist_is_refused_before_its_audit_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Earlier a misspelt account was told "-5, balance 0", with exit code 0."""
    monkeypatch.setattr(command, "settings_of_command", lambda: load_settings({"DATABASE_URL": URL}))
    lines: list[object] = []
    monkeypatch.setattr(command, "audited", lambda *given, **_: lines.append(given))
    monkeypatch.setattr(command, "balance_of", knows(None))
    result = CliRunner().invoke(app, ["credits", "refund", "user:nobody", "5"], env={"COLUMNS": "200"})
    assert (result.exit_code, lines) == (1, [])
    assert "no account user:nobody: no credits were ever granted to it" in result.output
