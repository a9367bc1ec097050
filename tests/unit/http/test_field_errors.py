"""A wrong body is refused in plain sentences: each names its field, says what is expected, and never has the value."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import AliasChoices, AwareDatetime, BaseModel, Field, StrictInt, StringConstraints, model_validator

from connectors.config.settings import Settings
from connectors.http import field_errors
from connectors.http.endpoint import Endpoint
from connectors.http.problem import Problem
from connectors.http.request_models import parsed
from connectors.kafka.checked_producer import CheckedProducer
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from connectors.lago.client import LagoClient
from connectors.processes.management_api import Management
from connectors.telemetry.metrics import Metrics

PAGE = (Path(__file__).parents[3] / "docs" / "errors-api.md").read_text(encoding="utf-8")
#: Words of pydantic that a caller of an API need not know.
FOREIGN = ("Input", "input", "Extra", "Field required", "Value error", "should", "dictionary", "instance", "validation")
SECRET = "sk-the-value"
VALUES: tuple[Any, ...] = (
    None,
    SECRET,
    "",
    "\u0001" + SECRET,
    SECRET * 100,
    -1,
    1.5,
    10**30,
    True,
    [],
    [SECRET],
    {},
    {"a": {"b": SECRET}},
)


class Part(BaseModel, extra="forbid"):
    code: str
    amount: Annotated[int, Field(ge=0)] = 0


class Body(BaseModel, extra="forbid"):
    plan_code: str
    kind: Literal["a", "b"] = "a"
    parts: Annotated[list[Part], Field(max_length=2)] = []
    until: AwareDatetime | None = None
    more: dict[Annotated[str, Field(max_length=3)], StrictInt | bool | None] = {}
    user: Annotated[str | None, Field(validation_alias=AliasChoices("user", "user_id"))] = None
    id: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$")] = "x"

    @model_validator(mode="after")
    def _one_payer(self) -> "Body":
        if self.user and self.kind == "b":
            raise ValueError("user and kind b exclude each other")
        return self


KNOWN = "plan_code, kind, parts, until, more, user, id"


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({}, {"plan_code": "`plan_code` is missing"}),
        ({"plan_code": 1}, {"plan_code": "`plan_code` must be text"}),
        ({"name": 1, "plan_code": "p"}, {"name": f"`name` is unknown; known are {KNOWN}"}),
        ({"kind": "c", "plan_code": "p"}, {"kind": "`kind` must be 'a' or 'b'"}),
        (
            {"plan_code": "p", "parts": [{"amount": -1, "cod": ""}]},
            {
                "parts.0.code": "`parts.0.code` is missing",
                "parts.0.amount": "`parts.0.amount` must be at least 0",
                "parts.0.cod": "`parts.0.cod` is unknown; known are code, amount",
            },
        ),
        ({"plan_code": "p", "parts": [{"code": ""}] * 3}, {"parts": "`parts` must have at most 2 entries"}),
        (
            {"plan_code": "p", "until": "2026-11-20T10:03"},
            {"until": "`until` must have an offset from UTC, for example 2026-11-20T10:03:00Z"},
        ),
        (
            {"plan_code": "p", "more": {"a": 1.5}},
            {"more.a": "`more.a` must be a whole number or must be true or false"},
        ),
        ({"plan_code": "p", "more": {"abcd": 1}}, {"more.abcd": "`more.abcd` must have at most 3 characters"}),
        ({"plan_code": "p", "user_id": 1}, {"user_id": "`user_id` must be text"}),
        ({"plan_code": "p", "id": ""}, {"id": "`id` must have at least one character, and no control characters"}),
        ({"plan_code": "p", "user": "u", "kind": "b"}, {"body": "user and kind b exclude each other"}),
        ([], {"body": "the body must be an object"}),
    ],
)
def test_each_wrong_field_has_its_own_sentence(body: Any, messages: dict[str, str]) -> None:
    with pytest.raises(Problem) as refused:
        parsed(Body, json.dumps(body).encode())
    problem = refused.value
    assert (problem.status, problem.reason) == (422, "invalid_fields")
    errors: Any = problem.members["errors"]
    assert {error["field"]: error["message"] for error in errors} == messages
    assert problem.detail == "; ".join(messages.values())


@pytest.fixture
async def endpoints() -> AsyncIterator[list[Endpoint]]:
    """Return all endpoints of the management API; no other server is used."""
    producer = KafkaProducer(producer_config("127.0.0.1:1", answer_within_s=1))
    try:
        async with httpx.AsyncClient() as http:
            lago = LagoClient(http, "http://127.0.0.1:1", "")
            management = Management(
                Settings(), CheckedProducer(producer), {"": lago}, Metrics(CollectorRegistry(), "0")
            )
            yield management.endpoints()
    finally:
        await producer.close(0.1)


def names(model: type[BaseModel]) -> list[str]:
    return [name for name, _ in model.model_json_schema()["properties"].items()]


async def test_no_sentence_contains_the_librarys_words_or_the_value(endpoints: list[Endpoint]) -> None:
    bodies = {one.body for one in endpoints if one.body is not None}
    sentences: set[str] = set()
    for model in bodies:
        for name in names(model):
            for value in VALUES:
                try:
                    parsed(model, json.dumps({name: value}).encode())
                except Problem as problem:
                    reported: Any = problem.members["errors"]
                    sentences |= {error["message"] for error in reported}
    assert len(sentences) > 100
    assert not [said for said in sentences if any(word in said for word in (*FOREIGN, SECRET))]


def test_the_page_has_the_sentences() -> None:
    chapter = PAGE.partition("## What invalid_fields says")[2].partition("\n## ")[0]
    said = {
        text.partition("{")[0].strip() for text in (*field_errors._SENTENCES.values(), *field_errors.PATTERNS.values())
    }
    missing = [text for text in said if text.partition(", for example")[0] not in chapter]
    assert missing == []
