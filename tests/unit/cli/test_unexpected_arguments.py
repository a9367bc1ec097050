"""No command repeats an unexpected argument: it may be a secret, and the output may end in logs."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from connectors.cli.base import moment_us
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


def texts_of() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each parameter of each command that takes a text or a file, except those that may be empty."""
    for words, command in sorted(LEAVES.items()):
        for one in command.params:
            if one.type_descriptor.annotation in (str, Path) and one.name != "comment":
                yield words, one


@pytest.mark.parametrize(
    ("words", "parameter"),
    list(texts_of()),
    ids=lambda value: value.name if hasattr(value, "name") else " ".join(value),
)
def test_an_empty_value_is_refused_because_it_might_mean_all_or_never(words: tuple[str, ...], parameter: Any) -> None:
    arguments = [one for one in LEAVES[words].params if one.param_type_name == "argument" and one.required]
    values = {one.name: _some_value(one) for one in arguments}
    options: list[str] = []
    for one in LEAVES[words].params:
        if one.param_type_name == "option" and one.required and one.name != parameter.name:
            options += [one.opts[0], _some_value(one)]
    if parameter.param_type_name == "option":
        options += [parameter.opts[0], ""]
    else:
        values[parameter.name] = ""
    result = CliRunner().invoke(app, [*words, *options, *values.values()], env={"COLUMNS": "300"})
    assert (result.exit_code, "is empty: give a value" in result.output) == (2, True), result.output


def _some_value(parameter: Any) -> str:
    """Return a value that the parameter accepts: one of its words, or a number."""
    return str(next(iter(get_args(parameter.type_descriptor.annotation)), "1"))


def test_only_what_is_optional_may_be_left_out() -> None:
    required = CliRunner().invoke(app, ["provider-keys", "revoke", ""], env={"COLUMNS": "200"})
    assert "empty: give a value" in required.output and "leave it out" not in required.output
    optional = CliRunner().invoke(app, ["lago", "rebill", "--org", ""], env={"COLUMNS": "200"})
    assert "--org is empty: give a value, or leave it out" in optional.output


def test_a_tab_is_a_delimiter(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    result = CliRunner().invoke(app, ["import", "mappings", str(file), "--delimiter", "\t"], env={"COLUMNS": "200"})
    assert "cannot be used: no such file or directory" in result.output


@pytest.mark.parametrize(
    "words",
    [
        ("replay", "--from", "2h", "--to", "1h", "--customer", "\udcff"),
        ("dlq", "requeue", "--comment", "a\udcff"),
        ("credits", "grant", "user:\udcff", "1"),
        ("credits", "refund", "user:a", "1", "--of", "\udcff"),
        ("keys", "create", "--name", "\udcff", "--scope", "*"),
        ("keys", "create", "--name", "x", "--scope", "*", "--org", "a", "--org", "\udcff"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_value_that_is_not_utf8_is_refused(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert (result.exit_code, "is not UTF-8" in result.output) == (2, True), result.output


def test_the_name_of_a_file_may_have_any_bytes(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["import", "mappings", str(tmp_path / "\udcff.csv")], env={"COLUMNS": "200"})
    assert "cannot be used: no such file or directory" in result.output


def test_the_last_month_of_the_calendar_is_no_month_to_export() -> None:
    result = CliRunner().invoke(app, ["export", "focus", "--month", "9999-12"], env={"DATABASE_URL": "postgresql:///x"})
    assert (result.exit_code, "--month: '9999-12' is not a month" in result.output) == (2, True)


def test_a_comment_may_be_empty() -> None:
    result = CliRunner().invoke(app, ["dlq", "requeue", "--comment", "", "--accept", "x"], env={"COLUMNS": "200"})
    assert "--accept: 'x' cannot be overruled" in result.output


@pytest.mark.parametrize("options", [(), ("--not-in-lago",), ("--may-be-in-lago",)])
def test_dead_letters_are_dismissed_only_if_an_option_selects_them(options: tuple[str, ...]) -> None:
    """What Lago may have selects none by itself: it would dismiss all refused calls with one word."""
    result = CliRunner().invoke(app, ["dlq", "dismiss", "--comment", "test", *options], env={"COLUMNS": "200"})
    assert (result.exit_code, "say which dead letters" in result.output) == (2, True)


#: Each option that takes a duration or a moment.
_LONG = f"{10**25}d"


@pytest.mark.parametrize(
    "words",
    [
        ("dlq", "list", "--since", _LONG),
        ("replay", "--from", _LONG, "--to", "1h"),
        ("rates", "show", "--at", _LONG),
        ("keys", "create", "--name", "x", "--scope", "*", "--expires", _LONG),
        ("keys", "rotate", "key_1", "--overlap", _LONG),
        ("credits", "grant", "user:a", "1", "--expires", _LONG),
        ("explain", "--customer", "a", "--at", "1h", "--around", _LONG),
        ("reconcile", "--litellm", "--from", _LONG),
        ("db", "prune", "--older-than", _LONG),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_duration_without_a_moment_in_the_calendar_is_refused_in_one_sentence(words: tuple[str, ...]) -> None:
    url = "postgresql://localhost:1/none"
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200", "DATABASE_URL": url})
    assert (result.exit_code, "this duration is too long" in result.output) == (2, True), result.output


def test_no_age_is_now_and_not_the_begin_of_this_second() -> None:
    """Otherwise `dlq dismiss --until 0s` left out what became a dead letter in this second."""
    before = time.time_ns() // 1000
    assert before <= moment_us("0s", "--until") <= time.time_ns() // 1000


def test_an_age_that_reaches_back_before_1970_is_the_beginning() -> None:
    """Kafka gives negative times a special meaning: -1 is the end of a topic."""
    assert moment_us("36000d", "--since") == 0


def test_a_topic_grows_to_at_most_as_many_partitions_as_the_setting_allows() -> None:
    """Kafka removes no partition again."""
    result = CliRunner().invoke(app, ["topics", "expand", "--partitions", "1001", "--yes"], env={"COLUMNS": "200"})
    assert (result.exit_code, "less than or equal to 1000" in result.output) == (2, True)


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
