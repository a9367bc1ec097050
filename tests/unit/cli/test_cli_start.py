"""What a command imports before its own work starts: nothing that only another command or its work needs.

Loading all libraries takes more than a second of CPU. It is what is loaded that is tested here, for a clock lies on a busy machine.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions, requires
from typing import Any, get_type_hints

import pytest
import typer.main

from connectors.cli.main import app
from connectors.cli.parsers.deferred import work_of
from tests.unit.cli.test_cli import COMMANDS

#: What parsers are made of; and what the settings are made of.
PARSERS = {"typer", "rich"}
SETTINGS = {"pydantic", "msgspec"}
#: They read no setting before their work begins.
WITHOUT_SETTINGS = (["demo"], ["lago-sandbox"], ["completion"], ["rates", "check"])
#: Words without which a command's parser refuses it.
NEEDED = {
    "credits grant": ["user:ada", "1"],
    "credits refund": ["user:ada", "1"],
    "credits balance": ["user:ada"],
    "credits transactions": ["user:ada"],
    "db prune": ["--older-than", "90d"],
    "dlq show": ["events/0/17"],
    "held write-off": ["--comment", "test"],
    "ledger init": ["--from", "earliest"],
    "topics expand": ["--partitions", "24"],
    "keys create": ["--name", "n", "--scope", "*"],
    "keys rotate": ["id"],
    "keys revoke": ["id"],
    "provider-keys revoke": ["id"],
    "export focus": ["--month", "2026-11"],
    "rates check": ["card.toml"],
    "rates put": ["card.toml", "--comment", "test"],
    "rates test": ["card.toml", "--from", "2h", "--to", "1h"],
    "rates compare": ["prices.json", "--from", "2h", "--to", "1h"],
    "import": ["mappings", "rows.csv"],
    "replay": ["--from", "2h", "--to", "1h"],
    "backfill": ["--source", "jsonl"],
}
#: Runs one command after the other, and prints for each its exit code and what is loaded by then.
PROGRAM = """
import json, sys
from typer.testing import CliRunner
from connectors.cli.main import app
for words in json.loads(sys.argv[1]):
    told = CliRunner().invoke(app, words)
    print(json.dumps([words, told.exit_code, told.stderr, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def libraries() -> set[str]:
    """Import names of everything that the distribution depends on to run."""
    lines = [line for line in requires("meterbridge") or () if "extra ==" not in line]
    wanted = {re.split(r"[^\w.-]", line)[0].lower() for line in lines}
    found = {name for name, of in packages_distributions().items() if wanted & {one.lower() for one in of}}
    assert {"faust", "aiokafka", "confluent_kafka", "asyncpg", "aiohttp", "httpx", "jwt", "structlog"} <= found
    return found


def loaded_by(commands: list[list[str]], **variables: str) -> list[tuple[list[str], int, str, set[str]]]:
    """Results of commands that one fresh interpreter runs in turn: words, exit code, stderr, and which of our libraries
    are loaded.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        check=True,
    )
    ours = libraries()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [(words, code, stderr, ours & set(loaded)) for words, code, stderr, loaded in lines]


def callbacks(command: Any) -> list[Any]:
    """The functions that Typer calls, of every command below a group."""
    below = getattr(command, "commands", {})
    found = [found for one in below.values() for found in callbacks(one)]
    own = getattr(command.callback, "__wrapped__", None)
    return [*found, own] if own is not None else found


def types_of(function: Callable[..., None]) -> dict[str, Any]:
    """Types of the parameters, as Typer reads them."""
    return get_type_hints(function, include_extras=False)


def test_the_help_of_all_commands_loads_only_the_parsers_libraries() -> None:
    groups = sorted({command[0] for command in COMMANDS if len(command) > 1})
    explained = [[], *([group] for group in groups), *COMMANDS]
    for words, code, _, loaded in loaded_by([[*command, "--help"] for command in explained]):
        assert (words, code, loaded - PARSERS) == (words, 0, set())


def test_a_wrong_setting_is_reported_before_a_commands_libraries_are_loaded() -> None:
    commands = [[*one, *NEEDED.get(" ".join(one), [])] for one in COMMANDS if one not in WITHOUT_SETTINGS]
    for words, code, stderr, loaded in loaded_by(commands, KAFKA_PARTITIONS="many"):
        assert (words, code, loaded - PARSERS - SETTINGS) == (words, 2, set())
        assert stderr.startswith("meterbridge: KAFKA_PARTITIONS must be")


def test_only_the_worker_loads_faust() -> None:
    works = sorted({work_of(one).__module__ for one in callbacks(typer.main.get_command(app))})
    program = "import sys\n" + "".join(f"import {name}\n" for name in works if not name.endswith(".worker"))
    subprocess.run([sys.executable, "-c", f"{program}sys.exit('faust' in sys.modules)"], check=True)


@pytest.mark.parametrize("command", callbacks(typer.main.get_command(app)))
def test_a_parser_and_its_command_have_the_same_parameters(command: Callable[..., None]) -> None:
    assert types_of(work_of(command)) == types_of(command)
