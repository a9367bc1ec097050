"""The command line: every command explains itself, and a wrong word is answered in one sentence."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from connectors.cli.main import app

README = Path(__file__).parents[3] / "README.md"
COMMANDS = (
    ["serve"],
    ["worker"],
    ["canary"],
    ["canary", "setup"],
    ["topics", "create"],
    ["topics", "check"],
    ["topics", "acls"],
    ["topics", "expand"],
    ["credits", "grant"],
    ["credits", "refund"],
    ["credits", "balance"],
    ["credits", "transactions"],
    ["credits", "check"],
    ["db", "init"],
    ["db", "migrate"],
    ["db", "prune"],
    ["db", "roles"],
    ["db", "unprojected"],
    ["doctor"],
    ["dlq", "list"],
    ["dlq", "show"],
    ["dlq", "requeue"],
    ["dlq", "dismiss"],
    ["held", "list"],
    ["held", "write-off"],
    ["audit", "verify"],
    ["ledger", "init"],
    ["ledger", "rebuild"],
    ["lago", "setup"],
    ["lago", "rebill"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "rotate"],
    ["keys", "revoke"],
    ["export", "focus"],
    ["keys", "rotate-secret"],
    ["provider-keys", "list"],
    ["provider-keys", "revoke"],
    ["provider-keys", "rotate-secret"],
    ["rates", "check"],
    ["rates", "put"],
    ["rates", "show"],
    ["rates", "test"],
    ["rates", "compare"],
    ["webhooks", "test"],
    ["migrate-orgs"],
    ["import"],
    ["recover"],
    ["replay"],
    ["backfill"],
    ["explain"],
    ["reconcile"],
    ["demo"],
    ["lago-sandbox"],
    ["completion"],
)

#: They run until they are stopped, or print a script.
WITHOUT_ANSWER = ("serve", "worker", "demo", "lago-sandbox", "completion")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    told = CliRunner().invoke(app, [*command, "--help"])
    assert told.exit_code == 0
    assert f"meterbridge {' '.join(command)}" in told.output.split("Example:")[1]


def commands_of(group: typer.Typer) -> set[tuple[str, ...]]:
    """Every command below a group, by its words."""
    own = {(command.name or command.callback.__name__,) for command in group.registered_commands if command.callback}
    for below in group.registered_groups:
        assert below.typer_instance is not None
        own |= {(below.name or "", *words) for words in commands_of(below.typer_instance)}
        if below.typer_instance.registered_callback is not None:
            own.add((below.name or "",))  # the group does something by itself
    return own


def test_every_command_there_is_is_tried_here() -> None:
    assert commands_of(app) == {tuple(command) for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme(command: list[str]) -> None:
    lines = [line for line in README.read_text().splitlines() if line.startswith(f"| `meterbridge {command[0]}")]
    assert any(command[-1] in line.split("|")[1].replace("\\|", " ") for line in lines)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one[0] not in WITHOUT_ANSWER], ids=" ".join)
def test_every_command_that_ends_answers_scripts_in_json(command: list[str]) -> None:
    told = CliRunner().invoke(app, [*command, "--help"])
    assert "--json" in told.output


def test_the_version_is_the_distributions() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.output.split()[0]) == (0, "meterbridge")


@pytest.mark.parametrize(
    ("words", "variables", "sentence"),
    [
        (["serve", "--only", "dashboard"], {}, "--only takes webhooks,api"),
        (["worker", "--only", "meter,"], {}, "--only takes meter,sink,retry"),
        (["lago-sandbox", "--dedup"], {}, "--dedup is a setting of the clickhouse store"),
        (["topics", "check"], {"KAFKA_PARTITIONS": "many"}, "KAFKA_PARTITIONS should be"),
    ],
)
def test_a_wrong_word_or_setting_is_one_sentence_and_exit_code_2(
    words: list[str], variables: dict[str, str], sentence: str
) -> None:
    told = CliRunner().invoke(app, words, env=variables)
    assert told.exit_code == 2
    assert told.stderr.splitlines()[-1].startswith(f"meterbridge: {sentence}")
    assert "Traceback" not in told.stderr
