"""The command line: every command has help, and a wrong argument is answered with one sentence."""

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from connectors.cli.main import PANELS, app

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
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"meterbridge {' '.join(command)}" in result.output.split("Example:")[1]


def commands_of(group: typer.Typer) -> set[tuple[str, ...]]:
    """Every command below a group, by the words that call it."""
    own = {(command.name or command.callback.__name__,) for command in group.registered_commands if command.callback}
    for below in group.registered_groups:
        assert below.typer_instance is not None
        own |= {(below.name or "", *words) for words in commands_of(below.typer_instance)}
        if below.typer_instance.registered_callback is not None:
            own.add((below.name or "",))  # the group does something by itself
    return own


def test_this_file_tests_every_command() -> None:
    assert commands_of(app) == {tuple(command) for command in COMMANDS}


def test_the_help_shows_the_commands_in_panels_in_their_order() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output
    panels = re.findall(r"╭─ (.+?) ─", result)
    assert panels == ["Options", "Run", "Set up", "Who pays and prices", "Stuck usage", "Check", "Recover"]
    listed = re.findall(r"^│ ([a-z][a-z-]+) ", result, re.MULTILINE)
    assert listed == [name for names in PANELS.values() for name in names]
    assert set(listed) == {command[0] for command in COMMANDS}


def test_the_help_shows_one_sentence_for_each_command() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert "Bills LiteLLM's calls through Lago, each call once." in " ".join(result.split())
    texts = {}
    for line in re.findall(r"^│ (.*?) *│$", result.partition("─ Run ─")[2], re.MULTILINE):
        if match := re.match(r"([a-z][a-z-]+) +(.*)", line):
            last = match[1]
            texts[last] = match[2]
        else:
            texts[last] += f" {line.strip()}"
    assert set(texts) == {command[0] for command in COMMANDS}
    for name, text in texts.items():
        assert text.endswith(".") and ". " not in text and text[0].isupper() and "Exit code" not in text, (name, text)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme(command: list[str]) -> None:
    lines = [line for line in README.read_text().splitlines() if line.startswith(f"| `meterbridge {command[0]}")]
    assert any(command[-1] in line.split("|")[1].replace("\\|", " ") for line in lines)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one[0] not in WITHOUT_ANSWER], ids=" ".join)
def test_every_command_that_ends_can_print_json(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert "--json" in result.output


def test_the_version_is_that_of_the_distribution() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output.split()[0]) == (0, "meterbridge")


@pytest.mark.parametrize(
    ("words", "variables", "sentence"),
    [
        (
            ["serve", "--only", "dashboard"],
            {},
            "--only: 'dashboard' is not known. Give one or several of webhooks,api,",
        ),
        (["worker", "--only", "meter,"], {}, "--only: 'meter,' is not known. Give one or several of meter,sink,retry"),
        (["lago-sandbox", "--dedup"], {}, "--dedup is a setting of the clickhouse store"),
        (
            ["explain", "--customer", "acme", "--at", "2h", "--usd", "abc"],
            {},
            "--usd: 'abc' is not a number. Give dollars, for example 0.012.",
        ),
        *(
            (["explain", "--customer", "acme", "--at", "2h", "--usd", usd], {}, f"--usd: '{usd}' is not a number.")
            for usd in ("1e1000000", "1e-999999", "0e-999999999", "1_0", "-Infinity")
        ),
        (
            ["explain", "--customer", "acme", "--at", "soon"],
            {},
            "--at: 'soon' is not a moment. Give ISO 8601, for example",
        ),
        *(
            (["replay", "--from", day, "--to", "1h"], {}, f"--from: '{day}' is not a moment: {why}")
            for day, why in (("2026-11-31", "there is no such moment, day"), ("1969-12-31", "outside 1970..9999. Give"))
        ),
        (["explain", "tx", "--at", "2h"], {}, "--at and --usd choose among the calls of a customer."),
        (["explain", "--customer", "a", "--request", "b"], {}, "give only one of these: a transaction id, --request"),
        (["explain"], {}, "give one of these: a transaction id, --request, or --customer with --at."),
        (
            ["explain", "--customer", "acme", "--at", "2h", "--around", "5"],
            {},
            "--around: '5' is not a duration. Give a number with s, m, h or d, for example 24h.",
        ),
        (
            ["replay", "--from", "1h", "--to", "2h"],
            {},
            "--from 1h is not before --to 2h. Give two moments, the earlier one first.",
        ),
        (["keys", "rotate", "x", "--overlap", "90d"], {}, "--overlap: 90d is too long. Give at most"),
        (["keys", "create", "--name", "n", "--scope", "*", "--expires", "0d"], {}, "--expires: 0d is no time at all."),
        (["credits", "grant", "user:a", "1", "--expires", "0d"], {}, "--expires: 0d is no time at all."),
        *(
            (words.split(), {}, f"{begin} 1h is not before {end} 2h. Give two moments, the earlier one first.")
            for words, begin, end in (
                ("dlq list --since 1h --until 2h", "--since", "--until"),
                ("reconcile --litellm --from 1h --to 2h", "--from", "--to"),
                ("backfill --source litellm-db --from 1h --to 2h", "--from", "--to"),
                ("rates test x.toml --from 1h --to 2h", "--from", "--to"),
                ("rates compare x.json --from 1h --to 2h", "--from", "--to"),
            )
        ),
        (["reconcile", "--from", "2h"], {}, "--from and --to choose among LiteLLM's spend logs. Add --litellm"),
        *(
            (["backfill", "--source", "csv", option, "1h"], {}, f"{option} is only for --source litellm-db.")
            for option in ("--from", "--to", "--overlap", "--checkpoint")
        ),
        (["backfill", "--source", "jsonl", "--delimiter", ";"], {}, "--delimiter is only for --source csv."),
        (["backfill", "--source", "litellm-db", "--file", "x"], {}, "--source litellm-db reads no --file."),
        (["dlq", "list", "--kind", "all"], {}, "--kind: 'all' is not known. Give events, calls or both."),
        (["dlq", "requeue", "--accept", "x"], {}, "--accept: 'x' cannot be overruled. Give implausible_cost."),
        (["keys", "create", "--name", "n", "--scope", "all"], {}, "--scope: 'all' is not a scope. Give one of "),
        (
            ["credits", "grant", "user:a", "1", "--type", "gift"],
            {},
            "--type: 'gift' is not a type of credits. Give one of bonus",
        ),
        (
            ["export", "focus", "--month", "May"],
            {},
            "--month: 'May' is not a month. Give a year and a month, for example",
        ),
        (
            ["audit", "verify", "--head", "x"],
            {},
            "--head: not the head of an audit log. Give what `audit verify` printed",
        ),
        (["dlq", "show", "17"], {}, "'17' is not the id of a dead letter. Give one that"),
        (
            ["credits", "grant", "ada", "1"],
            {},
            "'ada' is not an account. Give user:ID or org:ID, for example org:acme.",
        ),
        (
            ["credits", "grant", "user:ada", "five"],
            {},
            "AMOUNT: 'five' is not a number. Give dollars, for example 25 or 0.50.",
        ),
        (["credits", "refund", "--", "user:ada", "-1"], {}, "AMOUNT: -1 is below 0. Give the amount without its sign"),
        (
            ["rates", "compare", "x.json", "--from", "2h", "--to", "1h", "--bound", "1%"],
            {},
            "--bound: '1%' is not a share. Give a number from 0, for example 0.01 for 1 %.",
        ),
        (
            ["ledger", "init", "--from", "17"],
            {},
            "--from: an offset belongs to one partition. Give --partition too, for example --partition 3.",
        ),
        (["topics", "check"], {"KAFKA_PARTITIONS": "many"}, "KAFKA_PARTITIONS must be"),
    ],
)
def test_a_wrong_argument_or_setting_gives_one_sentence_and_exit_code_2(
    words: list[str], variables: dict[str, str], sentence: str
) -> None:
    result = CliRunner().invoke(app, words, env=variables)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"meterbridge: {sentence}")
    assert "Traceback" not in result.stderr
