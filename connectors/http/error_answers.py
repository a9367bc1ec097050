"""The HTTP answer to an error that a handler of the management API raises: its status and its sentence, for all endpoints."""

from collections.abc import Mapping
from typing import Final

from connectors.config.unanswered import sentence_of
from connectors.http.problem import Problem, try_again
from connectors.lago.errors import LagoIntegrationError
from schemas.errors import ConfigurationError, LedgerBroken, MeterbridgeError, TopicProblem, Unavailable

_RETRY_S = 5
_NO_POSTGRES = "DATABASE_URL"
#: The status of a `Rejected` by its reason; all others are 422. 402: credits are missing; 404: something does not exist; 409: it
#: conflicts with what exists.
_STATUS: Final[Mapping[str, int]] = {
    "unknown_org": 404,
    "unknown_customer": 404,
    "no_subscription": 404,
    "no_active_subscription": 404,
    "unknown_invoice": 404,
    "other_plan": 409,
    "several_subscriptions": 409,
    "plan_differs": 409,
    "too_many_versions": 409,
    "too_many_keys": 409,
    "key_ended": 409,
    "insufficient_credits": 402,
    "unknown_package": 404,
    "unknown_reservation": 404,
    "idempotency_conflict": 409,
    "purchase_ended": 409,
    "provider_key_exists": 409,
    "too_many_provider_keys": 409,
}
#: Lago's code for a customer that it does not know; the caller of this API asked about an org.
_NO_CUSTOMER = "customer_not_found"


def as_problem(error: MeterbridgeError) -> Problem:
    """Return the response to an error that a handler may raise; of the values of the request it holds at most ids.

    A topic that is missing or a damaged ledger is answered with 503: the request is right, and succeeds after an
    operator has repaired it.
    """
    if (status := _STATUS.get(error.reason)) is not None:
        return Problem(status, error.reason, error.detail)
    if isinstance(error, LagoIntegrationError):
        return _lagos(error)
    if isinstance(error, Unavailable):
        return try_again(error.reason, sentence_of(error), _RETRY_S)
    if isinstance(error, TopicProblem | LedgerBroken):
        return try_again(error.reason, error.detail, _RETRY_S)
    if isinstance(error, ConfigurationError):
        return Problem(501, "needs_postgres" if error.reason == _NO_POSTGRES else "not_configured", error.detail)
    return Problem(422, error.reason, error.detail)


def _lagos(error: LagoIntegrationError) -> Problem:
    """Return Lago's error about the caller's request. 502 and 503 stand for errors between Lago and this process."""
    if isinstance(error, Unavailable):
        return try_again(error.reason, sentence_of(error), _RETRY_S)
    if error.code == _NO_CUSTOMER:
        return Problem(404, "unknown_org", "there is no such org: POST .../organizations/{org_id}/setup makes it")
    if error.status in (404, 422):
        detail = error.detail.removeprefix(f"{error.code}: ")  # the reason of the problem is the code already
        return Problem(error.status, error.code or error.reason, detail, None, details=error.details)
    if not error.status:
        return Problem(422, error.reason, error.detail)
    if error.status in (401, 403):
        return Problem(502, error.reason, "Lago refuses the LAGO_API_KEY of this server: its operator must correct it")
    return Problem(502, error.reason, error.detail)
