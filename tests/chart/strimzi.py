"""The schemas of Strimzi's resources, as far as the chart uses them.

Sources: https://strimzi.io/docs/operators/latest/configuring.html, types KafkaTopicSpec, KafkaUserSpec, AclRule.
No registry ships the definitions, so they are written down here.
"""

from typing import Any


def _closed(*needed: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(needed), "additionalProperties": False}


_OPERATIONS = [
    *("Read", "Write", "Create", "Delete", "Alter", "Describe", "ClusterAction"),
    *("AlterConfigs", "DescribeConfigs", "IdempotentWrite", "All"),
]
_RULE = _closed(
    "resource",
    "operations",
    resource=_closed(
        "type",
        type={"enum": ["topic", "group", "cluster", "transactionalId"]},
        name={"type": "string"},
        patternType={"enum": ["literal", "prefix"]},
    ),
    operations={"type": "array", "items": {"enum": _OPERATIONS}},
    host={"type": "string"},
    type={"enum": ["allow", "deny"]},
)
_SPECS = {
    "KafkaTopic": _closed(
        topicName={"type": "string"},
        partitions={"type": "integer", "minimum": 1},
        replicas={"type": "integer", "minimum": 1, "maximum": 32_767},
        config={"type": "object", "additionalProperties": {"type": ["string", "integer", "number", "boolean"]}},
    ),
    "KafkaUser": _closed(
        authentication=_closed("type", type={"enum": ["tls", "tls-external", "scram-sha-512"]}),
        authorization=_closed("type", "acls", type={"enum": ["simple"]}, acls={"type": "array", "items": _RULE}),
    ),
}
SCHEMAS = {
    ("kafka.strimzi.io/v1", kind): _closed(
        "spec", apiVersion={"type": "string"}, kind={"type": "string"}, metadata={"type": "object"}, spec=spec
    )
    for kind, spec in _SPECS.items()
}
