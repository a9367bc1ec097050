"""No command repeats an unexpected argument: it may be a secret, and the output may end in logs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.cli.parsers.unexpected import CommandParser, GroupParser

SECRET = "sk-a1b2c3d4e5"  # none


def commands_of(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands and groups, with the words that call them."""
    yield words, command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands_of(one, (*words, name))


ALL = dict(commands_of(typer.main.get_command(app)))
LEAVES = {words: command for words, command in ALL.items() if not hasattr(command, "commands")}


#: Those that take no argument and need no option: what comes behind them is unexpected.
BARE = [
    words
    for words, command in LEAVES.items()
    if not any(one.required or one.param_type_name == "argument" for one in command.params)
]


def test_every_command_and_group_uses_these_classes() -> None:
    assert all(isinstance(command, CommandParser) for command in LEAVES.values())
    assert all(isinstance(ALL[words], GroupParser) for words in ALL.keys() - LEAVES.keys())
    assert ("provider-keys", "list") in BARE


@pytest.mark.parametrize("words", [*BARE, ("keys", "revoke", "key_1")], ids=" ".join)
def test_a_command_gives_the_number_of_unexpected_arguments_and_does_not_repeat_them(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, SECRET, f"{SECRET} 2"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "2 arguments were not expected" in result.output
    assert SECRET not in result.output


@pytest.mark.parametrize("words", sorted(ALL.keys() - LEAVES.keys()), ids=" ".join)
def test_a_group_does_not_repeat_an_unknown_subcommand(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, SECRET], env={"COLUMNS": "200"})
    assert (result.exit_code, "No such command." in result.output, SECRET in result.output) == (2, True, False)


def test_a_misspelt_command_is_answered_with_the_right_one() -> None:
    result = CliRunner().invoke(app, ["keys", "lits"], env={"COLUMNS": "200"})
    assert "Did you mean 'list'?" in result.output


def test_a_word_similar_to_a_command_is_answered_with_the_command_and_any_other_with_the_help() -> None:
    near, far = (CliRunner().invoke(app, [word]).output for word in ("serv", "nonsense"))
    assert "Did you mean 'serve'?" in near and "nonsense" not in far
    assert "meterbridge --help lists them." in " ".join(far.split())


def test_a_wrong_choice_is_explained_in_our_words_and_not_a_librarys() -> None:
    result = " ".join(CliRunner().invoke(app, ["backfill", "--source", "json"]).output.replace("│", "").split())
    assert "Value error" not in result
    assert "Invalid value for '--source': 'json' is not one of 'litellm-db', 'jsonl', 'csv'." in result


@pytest.mark.parametrize("words", [["import", "mappings"], ["migrate-orgs", "--mapping-file"]])
def test_a_missing_file_is_a_usage_error(words: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*words, str(tmp_path / "x.csv")])
    assert result.exit_code == 2 and "Errno" not in result.output
    assert "x.csv' cannot be used: no such file or directory." in result.output
