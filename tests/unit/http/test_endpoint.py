"""Declared endpoints: the docstring is the summary, a path with an org is guarded by it, and each reason has one status."""

from typing import ClassVar

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pydantic import BaseModel

from connectors.http.endpoint import (
    AuthorizedRequest,
    Endpoint,
    Principal,
    endpoint,
    endpoints_of,
    routes_of,
)
from connectors.http.error_answers import as_problem
from connectors.http.problem import Problem
from connectors.http.request_models import parsed
from connectors.lago.errors import LagoRejected, LagoUnavailable
from schemas.errors import LedgerBroken, MeterbridgeError, Rejected, TopicProblem, Unavailable

AGAIN = "Send the request again later; if it lasts, the operator must check "


class Handlers:
    @endpoint("GET", "/orgs/{org_id}/things", "things:read")
    async def of_org(self, _: AuthorizedRequest) -> web.Response:
        """List the things of an org.

        The rest is for readers of the code.
        """
        return web.Response()

    @endpoint("PUT", "/customers/{customer_id}", "things:write", org="customer_id", any_text=("customer_id",))
    async def one(self, _: AuthorizedRequest) -> web.Response:
        """Change a thing."""
        return web.Response()

    @endpoint("GET", "/things", "")
    async def every(self, _: AuthorizedRequest) -> web.Response:
        """List all things."""
        return web.Response()

    async def helper(self) -> None:
        """This is no endpoint."""


def test_endpoints_are_listed_in_source_order_with_their_docstrings_first_line() -> None:
    declared = [(one.method, one.path, one.scope, one.summary) for one in endpoints_of(Handlers())]
    assert declared == [
        ("GET", "/orgs/{org_id}/things", "things:read", "List the things of an org."),
        ("PUT", "/customers/{customer_id}", "things:write", "Change a thing."),
        ("GET", "/things", "", "List all things."),
    ]


def test_a_path_with_an_org_is_guarded_without_further_declaration() -> None:
    assert [one.org for one in endpoints_of(Handlers())] == ["org_id", "customer_id", ""]


def test_a_handler_is_bound_to_its_object() -> None:
    handlers = Handlers()
    assert [one.handler for one in endpoints_of(handlers)] == [handlers.of_org, handlers.one, handlers.every]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Rejected("unknown_org"), 404, "unknown_org"),
        (Rejected("other_plan"), 409, "other_plan"),
        (Rejected("too_many_versions"), 409, "too_many_versions"),
        (Rejected("key_ended"), 409, "key_ended"),
        (Rejected("bad_time"), 422, "bad_time"),
        (LagoRejected("no_subscription"), 404, "no_subscription"),
        (LagoRejected("http_404", status=404, code="customer_not_found"), 404, "unknown_org"),
        (LagoRejected("http_404", status=404, code="plan_not_found"), 404, "plan_not_found"),
        (LagoRejected("http_401", status=401), 502, "http_401"),
        (Unavailable("kafka_unavailable"), 503, "kafka_unavailable"),
        (TopicProblem("topic_missing"), 503, "topic_missing"),
        (LedgerBroken("unreadable_ledger"), 503, "unreadable_ledger"),
    ],
)
def test_a_refusal_has_the_status_of_its_reason(error: MeterbridgeError, status: int, reason: str) -> None:
    problem = as_problem(error)
    assert (problem.status, problem.reason) == (status, reason)


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (LagoUnavailable("connect", "ConnectError"), "Lago does not answer. " + AGAIN + "LAGO_API_URL."),
        (
            Unavailable("postgres_away", "ConnectionRefusedError"),
            "Postgres does not answer (connection refused). " + AGAIN + "DATABASE_URL.",
        ),
        (
            Unavailable("kafka_unavailable", "billing.audit: Local: Timed out"),
            "Kafka does not answer (billing.audit: Local: Timed out). " + AGAIN + "KAFKA_BOOTSTRAP_SERVERS.",
        ),
        (
            Unavailable("kafka_unavailable", "TOPIC_AUTHORIZATION_FAILED"),
            "Kafka does not take the record (TOPIC_AUTHORIZATION_FAILED). " + AGAIN + "KAFKA_BOOTSTRAP_SERVERS.",
        ),
        (
            Unavailable("kafka_timeout", "_MSG_TIMED_OUT"),
            "Kafka does not confirm the record (_MSG_TIMED_OUT). " + AGAIN + "KAFKA_BOOTSTRAP_SERVERS.",
        ),
        (
            LagoUnavailable("timeout", "HTTP 504"),
            "Lago does not answer in time (HTTP 504). " + AGAIN + "LAGO_API_URL.",
        ),
        (Unavailable("write_conflict", "other processes keep changing it"), "other processes keep changing it"),
    ],
)
def test_a_service_that_does_not_answer_is_named_in_words_and_not_by_an_exception(
    error: Unavailable, detail: str
) -> None:
    assert as_problem(error).detail == detail


class Text(BaseModel):
    name: str


class Exact(Text):
    exact_numbers: ClassVar[bool] = True


@pytest.mark.parametrize("model", [Text, Exact])
@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body is empty: send JSON"),
        (b" \n", "the body is empty: send JSON"),
        (b'{"name": "secret"', "the body is not JSON: it ends too early. Was it cut off?"),
        (b'{"name": secret}', "the body is not JSON: the first error is at column 10"),
        (b'{\n "name":\n  secret}', "the body is not JSON: the first error is at line 3, column 3"),
    ],
)
def test_a_body_that_is_not_json_is_told_where(model: type[BaseModel], body: bytes, told: str) -> None:
    with pytest.raises(Problem) as refused:
        parsed(model, body)
    assert (refused.value.status, refused.value.reason, refused.value.detail) == (400, "not_json", told)


class Query(BaseModel):
    days: int = 7
    group_by: str = "day"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("grup_by=key", "`grup_by` is unknown; known are days, group_by"),
        ("days=1&days=2", "`days` is given more than once"),
        ("days=x", "`days` must be a whole number"),
    ],
)
async def test_a_query_parameter_that_would_be_ignored_is_refused(query: str, told: str) -> None:
    answer = await asked(Endpoint("GET", "/usage", "things:read", "", shown, query=Query), query)
    assert (answer.status, answer.reason, answer.detail) == (422, "invalid_fields", told)


async def test_an_endpoint_without_query_parameters_refuses_them_unless_it_needs_no_credential() -> None:
    answer = await asked(Endpoint("GET", "/usage", "things:read", "", shown), "limit=1")
    assert (answer.status, answer.detail) == (422, "`limit` is unknown; there are none here")
    assert await asked(Endpoint("POST", "/hook", "", "", shown), "from=lago") is None


async def shown(_: AuthorizedRequest) -> web.Response:
    return web.Response()


class Everybody:
    async def admit(self, _request: web.Request, _endpoint: Endpoint) -> Principal:
        return Principal("test", frozenset("*"))

    async def changing(self, _principal: Principal, _request: web.Request, _before: object, _after: object) -> None:
        """Nothing is changed."""

    def refused(self, _request: web.Request, _problem: Problem) -> None:
        """Nothing is counted."""


async def asked(one: Endpoint, query: str) -> Problem | None:
    """Returns the problem with which the request is answered; None = it is answered."""
    [route] = routes_of([one], Everybody())
    try:
        await route.handler(make_mocked_request(one.method, f"{one.path}?{query}"))  # type: ignore[arg-type, misc]
    except Problem as problem:
        return problem
    return None
