"""A caller is never shown a regular expression: each pattern of a field has a sentence."""

from collections.abc import Iterator
from typing import Any

from connectors.http.field_errors import PATTERNS
from tests.contract.compatibility.current import openapi


def patterns_in(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for inner in schema.values():
            yield from patterns_in(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from patterns_in(inner)


def queries_of(method: Any) -> list[Any]:
    return [one for one in method.get("parameters", ()) if one["in"] == "query"]


def test_every_pattern_of_a_body_or_a_query_is_told_in_words() -> None:
    document = openapi()
    bodies = patterns_in(document["components"]["schemas"])
    queries = (one for path in document["paths"].values() for method in path.values() for one in queries_of(method))
    found = {*bodies, *(pattern for query in queries for pattern in patterns_in(query))}
    assert len(found) > 5
    assert sorted(found - PATTERNS.keys()) == []
