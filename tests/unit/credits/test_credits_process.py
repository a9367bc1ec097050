"""The credit endpoints in a process: without Postgres one clear answer, and every outcome is counted."""

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from connectors.config.settings import Settings, load_settings
from connectors.http.endpoint import Principal
from connectors.processes.api_databases import api_databases
from connectors.processes.credits_api import CreditsApi
from connectors.telemetry.metrics import Metrics
from schemas.reasons import STRIPE_OUTCOMES
from tests.support.entrance import Known, running_house
from tests.support.stripe_events import SECRET, body_of, charge, event, signed

ROOT = {"Authorization": "Bearer root"}
AMOUNT = {"user": "ada", "cost": "1"}


async def test_without_postgres_every_credit_endpoint_answers_that_it_is_missing() -> None:
    parts = CreditsApi(Settings(stripe_webhook_secret=SECRET), Metrics(CollectorRegistry(), "0"), None)  # type: ignore[arg-type]
    known = Known({"root": Principal("master key", frozenset({"*"}))})
    urls = {"success_url": "https://a.example", "cancel_url": "https://a.example"}
    asked = [
        ("GET", "balance?user=ada", None),
        ("GET", "transactions?user=ada", None),
        ("GET", "packages", None),
        ("GET", "refused-payments", None),
        ("POST", "debit", AMOUNT),
        ("POST", "authorize", {"user": "ada", "estimate": "1", "call_id": "c"}),
        ("DELETE", "authorize/x", None),
        ("POST", "purchase", {"user": "ada", "package_id": 1, **urls}),
    ]
    async with running_house([known], endpoints=parts.endpoints()) as house:

        async def said(answer: httpx.Response) -> tuple[int, str]:
            return answer.status_code, answer.json()["reason"]

        for verb, path, body in asked:
            headers = ROOT | {"Idempotency-Key": "k"}
            answer = await house.http.request(verb, f"/api/v1/credits/{path}", headers=headers, json=body)
            assert await said(answer) == (501, "needs_postgres"), path
        result = body_of(event("charge.refunded", charge(1)))
        answer = await house.http.post("/webhooks/stripe", content=result, headers=signed(result))
        assert await said(answer) == (501, "needs_postgres")
        assert house.topic.lines == [], "nothing was going to be changed"


async def test_events_are_counted_by_outcome_and_every_counter_starts_at_zero() -> None:
    metrics = Metrics(CollectorRegistry(), "0")
    settings = Settings(database_url="postgresql://127.0.0.1:1/x", stripe_webhook_secret=SECRET)  # type: ignore[arg-type]

    def counted() -> dict[str, float]:
        [family] = [one for one in metrics.registry.collect() if one.name == "meterbridge_stripe_events"]
        return {sample.labels["outcome"]: sample.value for sample in family.samples if sample.name.endswith("_total")}

    assert counted() == dict.fromkeys(STRIPE_OUTCOMES, 0.0)
    async with running_house(
        [], endpoints=CreditsApi(settings, metrics, api_databases(settings, metrics)).endpoints()
    ) as house:
        ignored, forged = body_of(event("customer.created", {"id": "cus_1"})), body_of(event("charge.refunded", {}))
        assert (await house.http.post("/webhooks/stripe", content=ignored, headers=signed(ignored))).status_code == 200
        assert (await house.http.post("/webhooks/stripe", content=forged, headers=signed(ignored))).status_code == 400
        assert (await house.http.post("/webhooks/stripe", content=forged)).status_code == 400
    wanted = {"ignored": 1.0, "bad_signature": 1.0, "unsigned": 1.0}
    assert counted() == dict.fromkeys(STRIPE_OUTCOMES, 0.0) | wanted
    assert b"meterbridge_stripe_events_total" in generate_latest(metrics.registry)


@pytest.mark.parametrize("outcome", STRIPE_OUTCOMES)
def test_every_outcome_is_a_valid_metric_label(outcome: str) -> None:
    assert outcome.replace("_", "").isalpha()


def test_credits_have_as_many_connections_as_the_setting_says() -> None:
    """Other requests have a small pool of their own, and slow work another one."""
    metrics = Metrics(CollectorRegistry(), "0")
    settings = load_settings({"DATABASE_URL": "postgresql://db.invalid/x", "API_POSTGRES_CONNECTIONS": "20"})
    databases = api_databases(settings, metrics)
    assert databases is not None
    assert [database.size for database in databases] == [20, 2, 2, 2]
    assert len(set(map(id, databases))) == 4
    databases.terminate()
    assert api_databases(Settings(), metrics) is None
