"""Every endpoint that a class of connectors/api declares is served, guarded for orgs, and has a scope that
docs/access.md explains.
"""

import json
import re
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel

from connectors.access.scopes import SCOPES
from connectors.api.mapping_models import MappingBody
from connectors.http.endpoint import Endpoint
from connectors.http.problem import Problem
from connectors.http.request_models import parsed
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


def _lax(model: type[BaseModel]) -> list[str]:
    """The fields that may be true or false, and accept a text."""
    found = []
    for name, schema in model.model_json_schema()["properties"].items():
        kinds = [one.get("type") for one in (schema, *schema.get("anyOf", ()))]
        if "boolean" in kinds and "string" not in kinds:
            try:
                parsed(model, json.dumps({name: "yes"}).encode())
            except Problem as problem:
                if f"`{name}` must be true or false" in problem.detail:
                    continue
            found.append(f"{model.__name__}.{name}")
    return found


def test_a_text_is_no_yes_and_no_no_in_any_body() -> None:
    """Earlier `"dry_run": "no"` and `"correct": "yes"` were taken; what `"correct": "n"` means is a guess."""
    bodies = {one.body for one in declared().values() if one.body is not None}
    assert len(bodies) > 10 and MappingBody in bodies
    assert [name for body in bodies for name in _lax(body)] == []
