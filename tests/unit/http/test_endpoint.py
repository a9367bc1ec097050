"""Declared endpoints: the docstring is the summary, a path with an org is guarded by it, and each reason has one status."""

import pytest
from aiohttp import web

from connectors.http.endpoint import AuthorizedRequest, as_problem, endpoint, endpoints_of
from connectors.lago.errors import LagoRejected, LagoUnavailable
from schemas.errors import LedgerBroken, MeterbridgeError, Rejected, TopicProblem, Unavailable


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
        (LagoUnavailable("connect", "ConnectError"), "Lago does not answer. Send the request again later."),
        (
            Unavailable("postgres_away", "ConnectionRefusedError"),
            "Postgres does not answer (connection refused). Send the request again later.",
        ),
        (
            Unavailable("kafka_unavailable", "billing.audit: Local: Timed out"),
            "Kafka does not answer (billing.audit: Local: Timed out). Send the request again later.",
        ),
        (
            Unavailable("kafka_unavailable", "TOPIC_AUTHORIZATION_FAILED"),
            "Kafka does not take the record (TOPIC_AUTHORIZATION_FAILED). Send the request again later.",
        ),
        (
            Unavailable("kafka_timeout", "_MSG_TIMED_OUT"),
            "Kafka does not confirm the record (_MSG_TIMED_OUT). Send the request again later.",
        ),
        (
            LagoUnavailable("timeout", "HTTP 504"),
            "Lago does not answer in time (HTTP 504). Send the request again later.",
        ),
        (Unavailable("write_conflict", "other processes keep changing it"), "other processes keep changing it"),
    ],
)
def test_a_service_that_does_not_answer_is_named_in_words_and_not_by_an_exception(
    error: Unavailable, detail: str
) -> None:
    assert as_problem(error).detail == detail
