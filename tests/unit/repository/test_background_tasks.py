"""No background task may end unnoticed: it is restarted, or its creator checks how it ended."""

import ast
from collections import Counter
from pathlib import Path
from typing import Final

from connectors.telemetry.counted_by_role import TASKS

ROOT: Final = Path(__file__).parents[3]
#: Where tasks begin that are not `kept_up`, how many, and who looks at how they end.
AWAITED: Final = {
    "connectors/billing/mappings.py": (1, "each caller awaits the count"),
    "connectors/billing/routed_discovery.py": (1, "a task group raises"),
    "connectors/http/shared_answer.py": (1, "each request awaits the answer"),
    "connectors/ingest/spool.py": (1, "hands its errors to the callers of `put`"),
    "connectors/kafka/compacted_writer.py": (2, "callers wait with a limit; the other closes a connection"),
    "connectors/operations/imports.py": (1, "a task group raises"),
    "connectors/processes/canary.py": (2, "the process ends with it"),
    "connectors/processes/server.py": (4, "the process ends with them"),
    "connectors/processes/worker.py": (4, "the process waits for them, or a stop signal does"),
    "streams/agents/organization_lanes.py": (5, "the lane reads it; the partition's task ends with its lanes"),
    "streams/delivery/engine.py": (1, "a task group raises"),
    "streams/runtime/compacted_table.py": (1, "`complete` raises what ended it"),
    "streams/runtime/faust_transport.py": (1, "the next tick raises what ended it"),
    "streams/runtime/partition_task.py": (1, "any error of it ends the process"),
    "streams/runtime/plain_consumer.py": (1, "closes a connection"),
    "streams/runtime/role.py": (3, "`close` raises what ended two; one ends consumers that only read"),
    "streams/runtime/run.py": (4, "the role waits for them"),
    "streams/runtime/transactions.py": (1, "closes a connection"),
    "streams/state/ledger.py": (1, "awaited while the ledger is opened"),
}
#: Where tasks get their names, beside the processes; and what their work looks like there.
_TASKS_OF: Final = (ROOT / "connectors/billing/subscription_discovery.py", ROOT / "connectors/http/health.py")
_WORK: Final = (ast.Attribute, ast.Lambda, ast.Call)
#: Programs of their own: not the product's processes, or without a loop of their own.
_APART: Final = ("connectors/sdk/", "connectors/litellm/plugin/", "connectors/demo/", "connectors/lago_sandbox/")


def _begun(file: Path) -> int:
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    tasks = [call for call in calls if _name(call) in ("create_task", "ensure_future")]
    return sum(not (isinstance(of := call.args[0], ast.Call) and _name(of) == "kept_up") for call in tasks)


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def test_each_task_is_restarted_or_its_end_is_checked() -> None:
    begun = Counter[str]()
    for folder in ("connectors", "streams"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            if not path.startswith(_APART):
                begun[path] += _begun(file)
    assert dict(+begun) == {path: count for path, (count, _) in AWAITED.items()}


def _names(file: Path) -> set[str]:
    """Names of tasks: arguments of the functions that restart them, and first members of pairs with the work."""
    found = set[str]()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and _name(node) in ("kept_up", "_meanwhile"):
            members = node.args
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[1], _WORK):
            members = node.elts[:1]
        else:
            continue
        found |= {one.value for one in members if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found - {""}


def test_the_metric_of_interruptions_has_each_task_from_the_start() -> None:
    """The first value of a counter must be 0, or its first increase is invisible."""
    places = [*_TASKS_OF, *(ROOT / "connectors" / "processes").glob("*.py")]
    assert set[str]().union(*map(_names, places)) == set(TASKS)
