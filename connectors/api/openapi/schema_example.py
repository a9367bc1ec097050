"""Makes an example for a JSON schema from its examples, its defaults, or a simple value of its type."""

from collections.abc import Mapping
from typing import Any, Final

_PLAIN: Final = {"string": "text", "integer": 1, "number": 1, "boolean": True, "array": [], "object": {}, "null": None}
_BY_FORMAT: Final = {"date-time": "2027-01-01T00:00:00Z", "date": "2027-01-01", "email": "billing@example.com"}
_DEEPEST: Final = 6


def example_of(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int = 0) -> Any:
    """Return an example for a schema; objects have only members that are required or have an example."""
    if "$ref" in schema:
        return example_of(definitions[schema["$ref"].rpartition("/")[2]], definitions, depth)
    for schema_part in ("examples", "enum"):
        if schema.get(schema_part):
            return schema[schema_part][0]
    for schema_part in ("example", "const", "default"):
        if schema.get(schema_part) is not None:
            return schema[schema_part]
    for alternatives in ("anyOf", "oneOf", "allOf"):
        if schema.get(alternatives):
            return example_of(schema[alternatives][0], definitions, depth)
    if schema.get("type") == "object" and depth < _DEEPEST:
        required = schema.get("required", ())
        members = schema.get("properties", {})
        shown_members = {
            name: schema_part
            for name, schema_part in members.items()
            if name in required or schema_part.get("examples")
        }
        return {name: example_of(schema_part, definitions, depth + 1) for name, schema_part in shown_members.items()}
    if schema.get("type") == "array" and schema.get("minItems") and depth < _DEEPEST:
        return [example_of(schema["items"], definitions, depth + 1)]
    return _BY_FORMAT.get(schema.get("format", ""), _PLAIN.get(schema.get("type", "")))
