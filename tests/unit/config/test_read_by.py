"""Which processes and commands read a setting: the page is compared with each place in the code that reads one."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from connectors.config.configuration_page import COMMANDS, NOTES, ROLES
from connectors.config.settings import VARIABLES, Settings

INGRESS, API, METER, SINK, RETRY, PROJECT, CANARY = ROLES
READ_BY = {name: (*ROLES, COMMANDS) if by == ("all",) else by for name, by in NOTES.read_by.items()}
ROOT = Path(__file__).parents[3] / "connectors"
_SERVED, _WORKERS, _ALL = {INGRESS, API}, {METER, SINK, RETRY, PROJECT}, {*ROLES}
#: Whose each module of `processes/` is that reads a setting.
OF_PROCESSES = {
    "server": _SERVED,
    "lagos": {*_SERVED, COMMANDS},
    **dict.fromkeys(("worker", "worker_parts"), _WORKERS),
    **{key: {API} for key in ("account_tables", "api_access", "api_databases", "credits_api", "management_api")},
    **{key: {API} for key in ("provider_keys", "queue_watch", "user_tokens")},
    "usage_ingress": {INGRESS},
    "identity_parts": {METER},
    "projector_tasks": {PROJECT},
    "canary": {CANARY},
    "certificates": _ALL,
}
#: Modules of `cli/` that are no command of their own, and so are of several; `running` is what the processes begin with as well.
OF_COMMANDS = {"account_tables": {COMMANDS}, "running": {COMMANDS, *_ALL}}
#: What they read is examined or passed on, and changes nothing that they do; `unreachable` names an address in an error.
OF_NONE = {"doctor", "demo", "unreachable"}
#: It decides which addresses are accepted when the settings are read.
OF_THE_SETTINGS = {"outgoing_webhook_allow_http"}
#: What makes values of the settings.
VALUES = (
    *("config/connections.py", "config/settings.py", "cli/backfill.py"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "config").glob("*_settings.py")),
)


def _direct(node: ast.AST) -> set[str]:
    """Fields of `settings.x`, or of `self.x` in methods of the settings."""
    found = {one for one in ast.walk(node) if isinstance(one, ast.Attribute) and one.attr in Settings.model_fields}
    return {
        one.attr for one in found if ast.unparse(one.value).split(".")[-1] in ("settings", "_settings", "self", "own")
    }


def _named(node: ast.AST) -> set[str]:
    return {one.id if isinstance(one, ast.Name) else one.attr for one in ast.walk(node) if isinstance(one, ast.Name | ast.Attribute)}  # fmt: skip


@cache
def values() -> dict[str, frozenset[str]]:
    """For each function or method that builds a value from settings: the settings that it reads."""
    bodies = {
        node.name: node
        for path in VALUES
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
        if (isinstance(node, ast.FunctionDef) and not node.name.startswith("_")) or (isinstance(node, ast.FunctionDef) and node.name == "_further")
    }  # fmt: skip
    found = {name: _direct(node) for name, node in bodies.items()}
    for _ in bodies:
        for name, node in bodies.items():
            found[name] |= {one for other in _named(node) & bodies.keys() - {name} for one in found[other]}
    tracing = {name for name in Settings.model_fields if name.startswith(("tracing_", "otel_"))}
    return {name: frozenset(read) for name, read in (found | {"tracing": tracing}).items()}


def places() -> Iterator[tuple[str, str, set[str], set[str]]]:
    """Folder and name of each module, the settings that it reads itself, and all settings that it reads or receives in
    a value.
    """
    for folder in ("processes", "cli"):
        for path in sorted((ROOT / folder).glob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            direct = _direct(tree)
            created = {one for name in _named(tree) & values().keys() for one in values()[name]}
            yield folder, path.stem, direct, direct | created


def readers(folder: str, module: str) -> set[str]:
    """The processes and commands to which a module belongs; a command's name is a prefix of its subcommands' names."""
    if folder == "processes":
        return OF_PROCESSES.get(module, set())
    return OF_COMMANDS.get(module, {COMMANDS, module.replace("_", "-")})


def test_every_setting_is_read_by_a_process_or_command() -> None:
    assert READ_BY.keys() == set(VARIABLES.values())
    assert all(READ_BY.values())


def test_every_reader_of_a_setting_is_on_the_page() -> None:
    """A module of one process makes this process a reader; a module of several processes makes at least one of them a
    reader.
    """
    missing = {
        (name, f"{folder}/{module}")
        for folder, module, direct, _ in places()
        for name in direct - {"unknown"}
        if module not in OF_NONE and not {one.split()[0] for one in READ_BY[name]} & readers(folder, module)
    }
    assert missing == set()


def test_every_reader_on_the_page_reads_the_setting() -> None:
    seen: dict[str, set[str]] = {}
    for folder, module, _, every in places():
        for reader in readers(folder, module):
            seen.setdefault(reader, set()).update(every)
    claimed = {
        (name, one) for name, by in READ_BY.items() for one in by if name not in OF_THE_SETTINGS and one != "doctor"
    }
    assert {(name, one) for name, one in claimed if name not in seen[one.split()[0]]} == set()
