"""The OpenAPI document says what each property and each parameter means."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from connectors.api.openapi.field_texts import SHARED, describe, field_texts, path_text
from tests.contract.compatibility.breaks import Json
from tests.contract.compatibility.current import openapi


@pytest.fixture(scope="module")
def document() -> Json:
    return openapi()


def properties(schema: Json, place: str) -> Iterator[tuple[str, Json]]:
    """Each property of a schema and of nested schemas, with its place."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{place}.{name}", inner
        yield from properties(inner, f"{place}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from properties(schema["items"], place)
    for several in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(several, ()):
            yield from properties(inner, place)


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_each_property_has_a_description(document: Json) -> None:
    found = [each for name, schema in document["components"]["schemas"].items() for each in properties(schema, name)]
    for of, operation in operations(document):
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (content for part in parts for content in part.get("content", {}).values()):
            found += properties(content["schema"], of)
    assert len(found) > 500
    assert not [place for place, schema in found if len(schema.get("description", "")) < 5]


def test_each_parameter_has_a_description(document: Json) -> None:
    found = [(of, one) for of, operation in operations(document) for one in operation.get("parameters", ())]
    assert len(found) > 50
    assert not [(of, one["name"]) for of, one in found if len(one.get("description", "")) < 5]


def texts(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("description"), str):
            yield part["description"]
        part = list(part.values())
    for inner in part if isinstance(part, list) else ():
        yield from texts(inner)


def test_texts_use_json_values_and_mention_no_internals(document: Json) -> None:
    found = list(texts(document))
    assert len(found) > 800
    assert not [text for text in found if re.search(r"\b(None|True|False|after validation)\b", text)]


def test_fields_explained_in_a_docstring_are_described_only_at_the_fields(document: Json) -> None:
    schemas = document["components"]["schemas"]
    assert not [name for name, schema in schemas.items() if "Fields:" in schema.get("description", "")]
    result = {one["name"]: one["description"] for one in document["paths"]["/customers/mappings"]["get"]["parameters"]}
    assert result["prefix"] == "Only customers whose ids begin so."


class Base(BaseModel):
    """Text.

    Fields:
        left, right: two sides,
            in one text.
        own: replaced below.
    """

    left: int = 0
    right: int = 0


class Inheriting(Base):
    """Text.

    Fields:
        own: its own.
    """

    own: int = 0
    silent: int = 0


def test_a_text_may_cover_several_fields_and_lines_and_is_inherited() -> None:
    both = "two sides, in one text."
    assert field_texts(Inheriting) == {"left": both, "right": both, "own": "its own."}


def test_a_field_without_a_text_is_an_error_that_names_it() -> None:
    assert "silent" not in SHARED
    with pytest.raises(KeyError, match=r"Inheriting\.silent"):
        describe({"Inheriting": Inheriting.model_json_schema()}, {"Inheriting": Inheriting})
    with pytest.raises(KeyError, match="unheard_of"):
        path_text("/customers/{unheard_of}", "unheard_of")
