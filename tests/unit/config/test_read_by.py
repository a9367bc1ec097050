"""Which processes and commands read a setting is what the page says: compared with each place in the source that reads one."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from connectors.config.read_by import API, CANARY, COMMANDS, INGRESS, METER, PROJECT, READ_BY, RETRY, ROLES, SINK
from connectors.config.settings import VARIABLES, Settings

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
    """Fields of `settings.x` or, in the methods of the settings, `self.x`."""
    found = {one for one in ast.walk(node) if isinstance(one, ast.Attribute) and one.attr in Settings.model_fields}
    return {
        one.attr for one in found if ast.unparse(one.value).split(".")[-1] in ("settings", "_settings", "self", "own")
    }


def _named(node: ast.AST) -> set[str]:
    return {one.id if isinstance(one, ast.Name) else one.attr for one in ast.walk(node) if isinstance(one, ast.Name | ast.Attribute)}  # fmt: skip


@cache
def values() -> dict[str, frozenset[str]]:
    """The settings in what each function, or method of the settings, makes."""
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
    """Folder and name of each module, the settings that it reads itself, and all that it reads or gets in a value."""
    for folder in ("processes", "cli"):
        for path in sorted((ROOT / folder).glob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            direct = _direct(tree)
            made = {one for name in _named(tree) & values().keys() for one in values()[name]}
            yield folder, path.stem, direct, direct | made


def readers(folder: str, module: str) -> set[str]:
    """Of whom the module is; the name of a command is the beginning of those of its subcommands."""
    if folder == "processes":
        return OF_PROCESSES.get(module, set())
    return OF_COMMANDS.get(module, {COMMANDS, module.replace("_", "-")})


def test_every_setting_has_readers() -> None:
    assert READ_BY.keys() == set(VARIABLES.values())
    assert all(READ_BY.values())


def test_who_reads_a_setting_is_on_the_page() -> None:
    """A module of one process makes it the reader; a module of several, at least one of them."""
    missing = {
        (name, f"{folder}/{module}")
        for folder, module, direct, _ in places()
        for name in direct - {"unknown"}
        if module not in OF_NONE and not {one.split()[0] for one in READ_BY[name]} & readers(folder, module)
    }
    assert missing == set()


def test_who_is_on_the_page_reads_the_setting() -> None:
    seen: dict[str, set[str]] = {}
    for folder, module, _, every in places():
        for reader in readers(folder, module):
            seen.setdefault(reader, set()).update(every)
    claimed = {
        (name, one) for name, by in READ_BY.items() for one in by if name not in OF_THE_SETTINGS and one != "doctor"
    }
    assert {(name, one) for name, one in claimed if name not in seen[one.split()[0]]} == set()
