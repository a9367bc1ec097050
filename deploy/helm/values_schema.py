"""The JSON schema of the chart's values, from values.yaml, the settings and bounds.yml.

A key's type is that of its default. Objects are closed: a misspelt key ends `helm install`.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import yaml

from connectors.config.settings import VARIABLES, Settings
from deploy.helm.kafka_files import every_secret
from deploy.helm.values_reader import Value

DIALECT: Final = "http://json-schema.org/draft-07/schema#"
#: Settings that values of the chart's own say.
OWNED: Final = frozenset(
    {
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_PARTITIONS",
        "KAFKA_REPLICATION_FACTOR",
        "KAFKA_SECURITY_PROTOCOL",
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SSL_CAFILE",
        "KAFKA_SSL_CERTFILE",
        "KAFKA_SSL_KEYFILE",
        "TOPIC_PREFIX",
        "DEPLOYMENT_NAME",
        "LAGO_API_URL",
        "POSTGRES_HOST",
        "POSTGRES_PORT",
        "POSTGRES_DB",
        "HOST",
        "PORT",
        "API_PORT",
        "METRICS_PORT",
        "SPOOL_PATH",
        "SPOOL_MAX_BYTES",
        "CANARY_URL",
        # A pod of a Deployment has another name after a restart: partitions would wait for one that does not come back.
        "POD_NAME",
        # A pod runs one role.
        "WORKER_PROCESSES",
    }
)
#: Settings that values of the chart's own say for all roles, and a role may say for itself: accounts.
OF_A_ROLE: Final = frozenset({"KAFKA_SASL_USERNAME", "POSTGRES_USER"})

_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}
_OBJECT: Final = {"type": "object"}
_OBJECTS: Final = {"type": "array", "items": _OBJECT}
_PLACE: Final = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "key": {"type": "string", "minLength": 1}},
    "required": ["name", "key"],
    "additionalProperties": False,
}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _named(names: list[str]) -> dict[str, Any]:
    """Settings of these names alone, each of its type."""
    return {"allOf": [{"$ref": "#/definitions/types"}], "propertyNames": {"enum": names}}


#: By pattern of the path, in the order in which they are tried.
_BOUNDS: Final[dict[str, dict[str, Any]]] = yaml.safe_load(Path(__file__).with_name("bounds.yml").read_text("utf-8"))


def schema(values: list[Value]) -> dict[str, Any]:
    """The schema of these values."""
    root = {"$schema": DIALECT, "title": "Values of the chart meterbridge", **_object((), values)}
    # Helm adds it where the chart is a part of another.
    root["properties"]["global"] = _OBJECT
    general = {name: _setting(name) for name in VARIABLES if name not in OWNED | OF_A_ROLE | set(every_secret())}
    accounts = {name: _setting(name) for name in sorted(OF_A_ROLE)}
    types = {"type": "object", "properties": general | accounts}
    return root | {
        "definitions": {
            "types": types,
            "settings": _named(list(general)),
            "settingsOfRole": _named([*general, *accounts]),
            "secrets": _closed(dict.fromkeys(every_secret(), _TEXT)),
            "secretRefs": _closed(dict.fromkeys(every_secret(), _PLACE)),
        }
    }


def _object(path: tuple[str, ...], values: list[Value]) -> dict[str, Any]:
    below = [value for value in values if value.path[:-1] == path]
    return _closed({value.path[-1]: _of(value, values) for value in below})


def _of(value: Value, values: list[Value]) -> dict[str, Any]:
    bounds = next((bounds for pattern, bounds in _BOUNDS.items() if fnmatchcase(value.name, pattern)), None)
    found = dict(bounds) if bounds is not None else _by_default(value, values)
    # Beside a reference draft 7 reads nothing.
    return found | ({"description": value.meaning} if value.meaning and "$ref" not in found else {})


def _by_default(value: Value, values: list[Value]) -> dict[str, Any]:
    default = value.default
    if isinstance(default, dict):
        is_map = not default or value.path[-1] in {"labels", "annotations"}
        return dict(_TEXTS) if is_map else _object(value.path, values)
    if isinstance(default, list):
        return dict(_OBJECTS)
    if isinstance(default, bool):
        return {"type": "boolean"}
    return {"type": "integer"} if isinstance(default, int) else {"type": "string"}


_PROPERTIES: Final = Settings.model_json_schema()["properties"]


def _setting(name: str) -> dict[str, Any]:
    """The schema of a setting: of a number its bounds, of a choice its words, of anything else text or a number."""
    described = _PROPERTIES[VARIABLES[name]]
    meaning = {"description": described["description"]}
    if described.get("type") in {"integer", "number"}:
        kept = ("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
        return {key: described[key] for key in kept if key in described} | meaning
    if described.get("type") == "boolean":
        return {"type": "boolean"} | meaning
    if "enum" in described:
        return {"enum": described["enum"]} | meaning
    return {"type": ["string", "number"]} | meaning
