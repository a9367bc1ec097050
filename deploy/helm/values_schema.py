"""The JSON schema of the chart's values, from values.yaml, the settings and the bounds below.

A key's type is that of its default. Objects are closed: a misspelt key ends `helm install`.
"""

from fnmatch import fnmatchcase
from typing import Any, Final

from connectors.config.settings import VARIABLES, Settings
from deploy.helm.kafka_files import every_secret
from deploy.helm.values_file import Value

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
_COUNT: Final = {"type": "integer", "minimum": 0}
_MANY: Final = {"type": "integer", "minimum": 1}
_PORT: Final = {"type": "integer", "minimum": 1, "maximum": 65_535}
_SIZE: Final = {"type": "string", "pattern": "^[0-9]+(Mi|Gi|Ti)$"}
_SHARE: Final = {"type": ["integer", "string"], "pattern": "^([0-9]+%?)?$"}
_PLACE: Final = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "key": {"type": "string", "minLength": 1}},
    "required": ["name", "key"],
    "additionalProperties": False,
}
_SERVED: Final = {"enum": ["webhooks", "api"]}
_PATH: Final = {"type": "string", "pattern": "^/"}


def _closed(properties: dict[str, Any], *needed: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": list(needed)} if needed else {})


def _named(names: list[str]) -> dict[str, Any]:
    """Settings of these names alone, each of its type."""
    return {"allOf": [_reference("types")], "propertyNames": {"enum": names}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/{name}"}


#: By pattern of the path; the first one that fits. What is not here has the type of its default.
_BOUNDS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("secretRefs", _reference("secretRefs")),
    ("*.secretRefs", _reference("secretRefs")),
    ("secrets", _reference("secrets")),
    ("existingSecretKeys", _reference("secrets")),
    ("settings", _reference("settings")),
    ("*.settings", _reference("settingsOfRole")),
    ("image.pullPolicy", {"enum": ["Always", "IfNotPresent", "Never"]}),
    ("*digest", {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}),
    ("image.repository", {"type": "string", "minLength": 1}),
    ("fullnameOverride", {"type": "string", "pattern": "^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$"}),
    ("kafka.bootstrapServers", {"type": "string", "pattern": r"^([^\s,]+:[0-9]+(,[^\s,]+:[0-9]+)*)?$"}),
    ("kafka.partitions", {"type": "integer", "minimum": 1, "maximum": 1000}),
    ("kafka.partitionsAtFirst", {"type": "integer", "minimum": 0, "maximum": 1000}),
    ("kafka.replicationFactor", {"type": "integer", "minimum": 1, "maximum": 9}),
    ("kafka.securityProtocol", {"enum": ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]}),
    ("kafka.saslMechanism", {"enum": ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]}),
    ("kafka.tls.client*Key", {"type": "string", "minLength": 1}),
    ("canary.url", {"type": "string", "pattern": "^(https?://.+)?$"}),
    ("lago.url", {"type": "string", "pattern": "^(https?://.+)?$"}),
    ("postgres.port", _PORT),
    ("*.service.port", _PORT),
    ("*.service.type", {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}),
    ("webhooks.spool.maxSize", {"type": "string", "pattern": "^[0-9]+(MiB|GiB|TiB)$"}),
    (
        "webhooks.spool.accessModes",
        {"type": "array", "items": {"enum": ["ReadWriteOnce", "ReadWriteOncePod"]}, "minItems": 1},
    ),
    ("*.spool.size", _SIZE),
    ("*Size", _SIZE),
    ("*.pdb.*vailable", _SHARE),
    ("*.targetCPUUtilizationPercentage", {"type": "integer", "minimum": 1, "maximum": 100}),
    ("*.minReplicas", _MANY),
    ("*.maxReplicas", _MANY),
    ("*.lagThreshold", _MANY),
    ("*.replicas", _COUNT),
    ("*Seconds", _COUNT),
    ("*.backoffLimit", _COUNT),
    ("keda.*er*d*", _COUNT),
    ("strimzi.users.authentication", {"enum": ["scram-sha-512", "tls"]}),
    ("strimzi.apiVersion", {"enum": ["kafka.strimzi.io/v1", "kafka.strimzi.io/v1beta2"]}),
    ("*.resources", _closed({"requests": _OBJECT, "limits": _OBJECT, "claims": _OBJECTS})),
    ("podSecurityContext", _OBJECT),
    ("securityContext", _OBJECT),
    (
        "*Probe",
        _closed(
            dict.fromkeys(
                ("periodSeconds", "timeoutSeconds", "failureThreshold", "initialDelaySeconds", "successThreshold"),
                _COUNT,
            )
        ),
    ),
    ("*ffinity", _OBJECT),
    (
        "ingress.hosts",
        {
            "type": "array",
            "items": _closed(
                {
                    "host": _TEXT,
                    "paths": {
                        "type": "array",
                        "minItems": 1,
                        "items": _closed(
                            {
                                "path": _PATH,
                                "pathType": {"enum": ["Prefix", "Exact", "ImplementationSpecific"]},
                                "service": _SERVED,
                            },
                            "path",
                            "pathType",
                            "service",
                        ),
                    },
                },
                "host",
                "paths",
            ),
        },
    ),
    (
        "httpRoute.routes",
        {
            "type": "array",
            "items": _closed(
                {
                    "service": _SERVED,
                    "hostnames": {"type": "array", "items": _TEXT, "minItems": 1},
                    "paths": {"type": "array", "items": _PATH, "minItems": 1},
                },
                "service",
                "hostnames",
                "paths",
            ),
        },
    ),
    ("metrics.runbooks", {"type": "string", "pattern": "^https?://.+/$"}),
    ("networkPolicy.*Ports", {"type": "array", "items": _PORT}),
)


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
    bounds = next((bounds for pattern, bounds in _BOUNDS if fnmatchcase(value.name, pattern)), None)
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
