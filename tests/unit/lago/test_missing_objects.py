"""An object that Lago does not have is named in a whole sentence, for commands and for callers of HTTP."""

import httpx
import pytest

from connectors.http.endpoint import as_problem
from connectors.lago.errors import LagoRejected, plan_not_found, refusal


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("plan_not_found", "Lago has no such plan: GET /api/billing/plans lists its plans, "),
        ("billable_metric_not_found", "Lago has no such billable metric: `meterbridge lago setup` makes the metrics"),
        ("subscription_not_found", "Lago has no such subscription"),
    ],
)
def test_lagos_own_404_is_a_sentence(code: str, sentence: str) -> None:
    """In an earlier version the answer to setup began with `GET /api/billing/plans`, if only Lago knew that the plan was gone."""
    error = refusal(httpx.Response(404, json={"status": 404, "error": "Not Found", "code": code}))
    assert isinstance(error, LagoRejected)
    assert error.detail.startswith(f"{code}: {sentence}")
    problem = as_problem(error)
    assert (problem.status, problem.reason) == (404, code) and problem.detail.startswith(sentence)


def test_a_plan_that_is_known_to_be_missing_is_named() -> None:
    assert as_problem(plan_not_found("ai_basik")).detail.startswith(
        "Lago has no plan 'ai_basik': GET /api/billing/plans"
    )
