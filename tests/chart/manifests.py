"""The schemas of every kind of manifest in the chart; strict: an unknown key is refused."""

import json
from functools import cache
from typing import Any

import yaml
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from tests.chart.rendering import Manifest
from tests.chart.strimzi import SCHEMAS
from tests.chart.tools import definitions, kubernetes_schemas

#: The oldest version that Chart.yaml allows, and the newest one.
VERSIONS = ("1.27.0", "1.37.0")


@cache
def _registry(version: str) -> Registry[Any]:
    parts = json.loads((kubernetes_schemas(version) / "_definitions.json").read_text())
    resource = Resource(contents=parts, specification=DRAFT7)
    return Registry[Any]().with_resource("/api/_definitions.json", resource)


def closed(schema: Any) -> Any:
    """The schema of a resource definition as a JSON schema that refuses what the API server would drop."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    if found.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = found.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in found
    if isinstance(found.get("properties"), dict) and found.get("type") == "object" and not kept:
        found["additionalProperties"] = False
    return found


@cache
def _defined() -> dict[tuple[str, str], Any]:
    found = dict(SCHEMAS)
    for path in definitions():
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


@cache
def _validator(api: str, kind: str, version: str) -> Draft7Validator:
    group, _, of_group = api.rpartition("/")
    path = kubernetes_schemas(version) / "-".join(filter(None, (kind.lower(), group.split(".")[0], of_group)))
    path = path.with_name(f"{path.name}.json")
    schema = json.loads(path.read_text()) if path.exists() else _defined()[api, kind]
    return Draft7Validator(schema, registry=_registry(version))


def complaints(manifest: Manifest, version: str) -> list[str]:
    """What Kubernetes of this version would refuse or drop in a manifest."""
    validator = _validator(manifest["apiVersion"], manifest["kind"], version)
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(manifest)]
