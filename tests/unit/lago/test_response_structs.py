"""Structs that describe Lago's answers are in `responses.py`, as those of requests are in `requests.py`."""

import ast
from pathlib import Path

LAGO = Path(__file__).parents[3] / "connectors" / "lago"


def test_every_shared_struct_is_in_the_module_of_requests_or_of_responses() -> None:
    structs = {
        node.name: path.name
        for path in LAGO.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        if any(ast.unparse(base) == "msgspec.Struct" for base in node.bases)
    }
    assert {"Invoice", "NewPlan", "CustomerUsage"} <= structs.keys()
    assert {name: file for name, file in structs.items() if file not in ("requests.py", "responses.py")} == {}
