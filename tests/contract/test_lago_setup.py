"""`meterbridge lago setup` with the sandbox: each object is created once, however often the command is run or killed."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from connectors.billing.lago_setup import Setup, SetupReport
from connectors.cli.main import app
from connectors.lago.client import LagoIntegrationError
from tests.support.mortal_wire import Killed, MortalWire
from tests.support.sandbox import KEY, Clock, Lago, lago_sandbox

HOOK = "https://meter.example/webhooks/lago"
METRICS = {"ai_usage": ("sum_agg", "unit"), "api_call": ("count_agg", None)}
PLANS = {
    "ai_usage_plan": (0, ["dynamic"]),
    "ai_basic": (0, ["dynamic"]),
    "trial": (100, []),
    "starter": (1900, []),
    "professional": (4900, []),
    "enterprise": (9900, []),
    "founders_friend": (0, []),
}


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=Clock()) as running:
        yield running


async def run(lago: Lago, wire: MortalWire | None = None, *, only_check: bool = False) -> SetupReport:
    wire = wire or MortalWire()
    try:
        return await Setup(wire.client(lago.url), "ai_usage", HOOK, only_check=only_check).run()
    finally:
        await wire.aclose()


async def everything(lago: Lago) -> dict[str, list[dict[str, Any]]]:
    paths = ("billable_metrics", "plans", "webhook_endpoints")
    return {path: (await lago.get(f"/{path}")).json()[path] for path in paths}


async def command(lago: Lago, *words: str, **variables: str) -> Result:
    """Run the command in a thread, because it starts its own event loop."""
    env = {"LAGO_API_URL": lago.url, "LAGO_API_KEY": KEY, "LAGO_WEBHOOK_URL": HOOK} | variables
    return await asyncio.to_thread(CliRunner().invoke, app, ["lago", "setup", *words], env=env)


async def test_an_empty_lago_gets_every_metric_every_plan_and_the_endpoint(lago: Lago) -> None:
    report = await run(lago)
    assert (len(report.created), report.complaints) == (10, [])
    found = await everything(lago)
    assert {m["code"]: (m["aggregation_type"], m["field_name"]) for m in found["billable_metrics"]} == METRICS
    assert {
        plan["code"]: (plan["amount_cents"], [charge["charge_model"] for charge in plan["charges"]])
        for plan in found["plans"]
    } == PLANS
    assert {charge["billable_metric_code"] for plan in found["plans"] for charge in plan["charges"]} == {"ai_usage"}
    assert {(p["interval"], p["amount_currency"], p["pay_in_advance"]) for p in found["plans"]} == {
        ("monthly", "USD", False)
    }
    [endpoint] = found["webhook_endpoints"]
    assert (endpoint["webhook_url"], endpoint["signature_algo"], endpoint["event_types"]) == (HOOK, "hmac", None)


async def test_a_second_run_changes_nothing(lago: Lago) -> None:
    await run(lago)
    before = await everything(lago)
    report = await run(lago)
    assert (report.created, report.complaints) == ([], [])
    assert await everything(lago) == before


async def test_after_a_kill_at_any_request_a_second_run_leaves_one_of_each() -> None:
    steps = 14
    for step in range(1, steps + 1):
        for sent in (False, True):
            async with lago_sandbox(clock=Clock()) as lago:
                with pytest.raises(Killed):
                    await run(lago, MortalWire(step, sent=sent))
                assert (await run(lago)).complaints == []
                found = await everything(lago)
                assert sorted(one["code"] for one in found["billable_metrics"]) == sorted(METRICS)
                assert sorted(one["code"] for one in found["plans"]) == sorted(PLANS)
                assert len(found["webhook_endpoints"]) == 1
    async with lago_sandbox(clock=Clock()) as lago:
        untouched = MortalWire()
        await run(lago, untouched)
        assert len(untouched.requests) == steps


async def test_ten_concurrent_runs_create_one_of_each(lago: Lago) -> None:
    reports = await asyncio.gather(*(run(lago) for _ in range(10)))
    assert not [report.complaints for report in reports if report.complaints]
    assert {path: len(found) for path, found in (await everything(lago)).items()} == {
        "billable_metrics": 2,
        "plans": 7,
        "webhook_endpoints": 1,
    }


async def test_a_check_changes_nothing(lago: Lago) -> None:
    wire = MortalWire()
    report = await run(lago, wire, only_check=True)
    assert {method for method, _ in wire.requests} == {"GET"}
    assert report.complaints == [
        *(f"The metric {code} is missing." for code in METRICS),
        *(f"The plan {code} is missing." for code in PLANS),
        "The webhook endpoint is missing.",
    ]
    await run(lago)
    assert (await run(lago, only_check=True)).complaints == []


async def test_an_object_that_differs_is_reported_and_not_changed(lago: Lago) -> None:
    """Lago does not let an object in use be changed."""
    metric = await lago.metric("ai_usage", field_name="tokens")
    charge = {"billable_metric_id": metric, "charge_model": "standard", "properties": {"amount": "1"}}
    await lago.plan("ai_basic", charges=[charge])
    await lago.plan("ai_usage_plan")
    await lago.plan("starter", 2000, interval="yearly", amount_currency="EUR", pay_in_advance=True)
    await lago.save("/webhook_endpoints", "webhook_endpoint", webhook_url=HOOK + "/", event_types=["invoice.created"])
    before = await everything(lago)
    report = await run(lago)
    assert report.complaints == [
        "The metric ai_usage reads the property tokens, not unit.",
        "The plan ai_usage_plan charges ai_usage as nothing, not dynamic.",
        "The plan ai_basic charges ai_usage as standard, not dynamic.",
        "The plan starter costs cents 2000, not 1900.",
        "The plan starter is in EUR, not USD.",
        "The plan starter is billed yearly, not monthly.",
        "The plan starter is paid in advance: True, not False.",
        "The webhook endpoint signs by jwt, not hmac.",
        "The webhook endpoint is sent invoice.created, not all.",
    ]
    after = await everything(lago)
    assert [one for one in after["plans"] if one in before["plans"]] == before["plans"]
    assert after["webhook_endpoints"] == before["webhook_endpoints"]


async def test_plans_of_a_metric_that_cannot_be_charged_are_not_created(lago: Lago) -> None:
    await lago.metric("ai_usage", aggregation_type="count_agg", field_name=None)
    report = await run(lago)
    assert report.complaints[0] == "The metric ai_usage is count_agg, not sum_agg."
    assert "The plan ai_basic is missing." in report.complaints
    assert "plan starter" in report.created


async def test_a_webhook_is_registered_only_if_its_address_is_set(lago: Lago) -> None:
    result = await command(lago, LAGO_WEBHOOK_URL="")
    assert (result.exit_code, (await everything(lago))["webhook_endpoints"]) == (0, [])
    assert (await command(lago, LAGO_WEBHOOK_URL="https://other.example/lago")).exit_code == 0
    assert [one["webhook_url"] for one in (await everything(lago))["webhook_endpoints"]] == [
        "https://other.example/lago"
    ]


async def test_the_metric_of_usage_has_the_code_of_our_events(lago: Lago) -> None:
    assert (await command(lago, LAGO_EVENT_CODE="tokens")).exit_code == 0
    found = await everything(lago)
    assert {one["code"] for one in found["billable_metrics"]} == {"tokens", "api_call"}
    [basic] = [one for one in found["plans"] if one["code"] == "ai_basic"]
    assert [charge["billable_metric_code"] for charge in basic["charges"]] == ["tokens"]


async def test_the_command_prints_what_it_created_and_a_check_has_an_exit_code(lago: Lago) -> None:
    missing = await command(lago, "--check")
    assert missing.exit_code == 1
    assert missing.stderr.splitlines()[0] == "The metric ai_usage is missing."
    assert missing.stdout == "10 things differ or are missing.\n"
    created = await command(lago)
    assert (created.exit_code, created.stdout.splitlines()[0]) == (0, "10 made.")
    right = await command(lago, "--check", "--json")
    assert (right.exit_code, json.loads(right.stdout)) == (0, {"right": True, "created": [], "complaints": []})


async def test_one_difference_is_counted_in_the_singular(lago: Lago) -> None:
    """It is also said if the command has made something else."""
    await lago.metric("ai_usage", field_name="unit")
    await lago.plan("starter", 2000)
    made = await command(lago)
    assert (made.stdout.splitlines()[0], made.stdout.splitlines()[-1]) == ("8 made.", "1 thing differs or is missing.")
    assert (await command(lago, "--check")).stdout == "1 thing differs or is missing.\n"


async def test_with_json_the_output_is_one_object_with_the_differences(lago: Lago) -> None:
    result = await command(lago, "--check", "--json")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["right"], len(answer["complaints"])) == (1, False, 10)


@pytest.mark.parametrize(
    ("variables", "code", "sentence"),
    [
        ({"LAGO_API_KEY": ""}, 2, "LAGO_API_KEY is not set"),
        ({"LAGO_API_KEY": "wrong"}, 1, "http_401"),
        ({"LAGO_API_URL": "http://127.0.0.1:1"}, 1, "Lago does not answer at LAGO_API_URL=http://127.0.0.1:1"),
    ],
)
async def test_an_unreachable_lago_gives_one_sentence(variables: dict[str, str], code: int, sentence: str) -> None:
    async with lago_sandbox(clock=Clock(), api_key=KEY) as lago:
        result = await command(lago, **variables)
    assert (result.exit_code, sentence in result.stderr, "Traceback" in result.stderr) == (code, True, False)


async def test_a_refusal_by_lago_ends_the_run(lago: Lago) -> None:
    await lago.fault(kind="status", status=503, path="/api/v1/plans", method="*", count=1)
    with pytest.raises(LagoIntegrationError) as caught:
        await run(lago)
    assert (caught.value.status, caught.value.retryable) == (503, True)
    assert (await run(lago)).complaints == []
