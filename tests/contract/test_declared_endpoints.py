"""Every endpoint that a class of connectors/api declares is served, guarded for orgs, and has a scope that
docs/access.md explains.
"""

import re
from importlib import import_module
from pathlib import Path

from connectors.access.scopes import SCOPES
from connectors.http.endpoint import Endpoint
from tests.contract.compatibility.current import openapi

ROOT = Path(__file__).parents[2]


def declared() -> dict[str, Endpoint]:
    """Each declared endpoint, by its place in the source."""
    found = {}
    for path in sorted((ROOT / "connectors" / "api").glob("*.py")):
        module = import_module(f"connectors.api.{path.stem}")
        classes = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
        for of_class in classes:
            for name, member in vars(of_class).items():
                if (make := getattr(member, "__dict__", {}).get("endpoint")) is not None:
                    found[f"{path.name}::{of_class.__name__}.{name}"] = make(handler=member)
    return found


def test_every_declared_endpoint_is_served() -> None:
    """The class of a new resource must be listed where the process creates its endpoints."""
    served = {(method.upper(), path) for path, operations in openapi()["paths"].items() for method in operations}
    endpoints = declared()
    assert len(endpoints) > 40
    assert {place: one.path for place, one in endpoints.items() if (one.method, one.path) not in served} == {}


def test_an_org_in_a_path_is_called_org_id_so_that_keys_bound_to_orgs_reach_only_theirs() -> None:
    named = {place: re.search(r"/(?:orgs|organizations)/\{(\w+)\}", one.path) for place, one in declared().items()}
    assert sum(found is not None for found in named.values()) > 10
    assert {place for place, found in named.items() if found is not None and found[1] != "org_id"} == set()


def test_every_scope_is_known_and_explained() -> None:
    page = (ROOT / "docs" / "access.md").read_text(encoding="utf-8")
    assert [scope for scope in SCOPES if f"`{scope}`" not in page] == []
    used = {one.scope for one in declared().values() if one.scope}
    assert used - SCOPES.keys() == set()
