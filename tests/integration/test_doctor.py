"""`meterbridge doctor` with a proxy that answers like LiteLLM, with the Lago sandbox, and with its own documents."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.config.settings import Settings, load_settings
from connectors.doctor.catalogue import BY_SUBJECT, KINDS, page
from connectors.doctor.examination import ExaminationReport, examine
from connectors.doctor.run import report_text
from connectors.litellm.known_versions import newest
from connectors.litellm.proxy import ask_proxy
from connectors.litellm.recommended import working_yaml
from connectors.litellm.seen import USAGE_PATH, CallbackKind
from schemas.errors import Rejected, Unavailable
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.ports import free_port
from tests.support.sandbox import KEY, Lago, event, lago_sandbox

ROOT = Path(__file__).parents[2]
MASTER_KEY = "sk-master-of-the-proxy"
GOOD = {
    "WEBHOOK_TOKEN": "t",
    "CUSTOMER_ID_FIELDS": "user,team,organization,key",
    "KAFKA_REPLICATION_FACTOR": "3",
    "SPOOL_PATH": "/data/spool.db",
    "LITELLM_MASTER_KEY": MASTER_KEY,
    "LAGO_API_KEY": KEY,
}
#: What 1.109.1 said of a proxy with the working configuration, shortened.
OURS = [
    {"name": "meterbridge", "variables": {}, "type": "success_and_failure"},
    {
        "name": "generic_api",
        "variables": {"GENERIC_LOGGER_ENDPOINT": None, "GENERIC_LOGGER_HEADERS": None},
        "type": "success_and_failure",
        "read_only": True,
    },
]
#: And of one with `callbacks: ["lago"]`.
LAGO = [
    {
        "name": "lago",
        "variables": {
            "LAGO_API_BASE": "http://mb:8080",
            "LAGO_API_KEY": "canary",
            "LAGO_API_EVENT_CODE": "x",
            "LAGO_API_CHARGE_BY": None,
        },
        "type": "success_and_failure",
    }
]


@asynccontextmanager
async def proxy(
    callbacks: list[dict[str, Any]], loggers: list[str], version: str = "1.109.1", *, details: bool = True
) -> AsyncIterator[str]:
    """A proxy's admin API; without `details` like older ones, which report the same under `/health/readiness`."""
    ready = {"status": "healthy", "db": "Not connected", "litellm_version": version, "success_callbacks": loggers}

    def answer_with(body: Mapping[str, Any]) -> Any:
        async def answer(request: web.Request) -> web.Response:
            if request.headers.get("Authorization") != f"Bearer {MASTER_KEY}":
                return web.json_response({"error": {"message": "No connected db."}}, status=400)
            return web.json_response(body)

        return answer

    routes = [web.get("/get/config/callbacks", answer_with({"status": "success", "callbacks": callbacks}))]
    routes.append(web.get("/health/readiness" + ("/details" if details else ""), answer_with(ready)))
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def examined(
    url: str | None, config: Path | None = None, *, lago: Lago | None = None, **changes: str
) -> tuple[ExaminationReport, set[str]]:
    own: Settings = load_settings({**GOOD, **({"LAGO_API_URL": lago.url} if lago else {}), **changes})
    async with http_client(trust_env=False, timeout=5 * PATIENCE) as http:
        report = await examine(own, http, config, url, with_lago=lago is not None)
    apart = {
        *BY_SUBJECT["versions"],
        "endpoint_unanswered",  # no ingress runs at the address of the working configuration
    }
    return report, {finding.code for finding in report.findings} - apart


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(working_yaml())
    return path


async def test_a_running_proxy_is_judged_by_what_it_reports_and_the_report_says_what_is_unknown() -> None:
    async with proxy(OURS, ["GenericAPILogger"]) as url:
        report, codes = await examined(url)
    assert codes == {"settings_unseen", "callback_unseen"}
    assert report.exit_code == 0


async def test_the_version_of_a_running_proxy_is_looked_up() -> None:
    async with proxy(OURS, ["GenericAPILogger"], newest()) as url:
        report, _ = await examined(url)
    assert report.exit_code == 0
    assert f"  ok  version_known  LiteLLM {newest()} was tried with " in report_text(report)
    assert "Findings: 2 degraded." in report_text(report)
    async with proxy(OURS, ["GenericAPILogger"], "2.0.0") as url:
        report, _ = await examined(url)
    assert f"LiteLLM 2.0.0 was not tried; it is newer than {newest()}" in report_text(report)


async def test_the_file_and_the_running_proxy_are_judged_together(config: Path) -> None:
    async with proxy(OURS, ["GenericAPILogger"]) as url:
        assert (await examined(url, config))[1] == set()
    async with proxy(OURS, ["ServiceLogging"], "1.106.2") as url:
        assert (await examined(url, config))[1] == {"callback_not_loaded", "old_version"}
    async with proxy(LAGO, ["LagoLogger", "GenericAPILogger"]) as url:
        assert (await examined(url, config))[1] == {"other_config_runs"}


async def test_the_address_to_which_litellm_posts_is_asked(tmp_path: Path) -> None:
    """In an earlier version an endpoint with a wrong port had no finding."""

    async def usage(_: web.Request) -> web.Response:
        return web.Response()

    async def found_at(port: int, path: str = USAGE_PATH) -> set[str]:
        file = tmp_path / "config.yaml"
        file.write_text(working_yaml(f"http://127.0.0.1:{port}{path}"))
        async with http_client(trust_env=False, timeout=5 * PATIENCE) as http:
            report = await examine(load_settings(GOOD), http, file, None, with_lago=False)
        return {finding.code for finding in report.findings} & BY_SUBJECT["endpoint"].keys()

    application = web.Application()
    application.add_routes([web.post(USAGE_PATH, usage)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port = int(runner.addresses[0][1])
        assert await found_at(port) == set()
        assert await found_at(port, f"/elsewhere{USAGE_PATH}") == {"endpoint_not_ours"}
    finally:
        await runner.cleanup()
    assert await found_at(free_port()) == {"endpoint_unanswered"}


async def test_the_proxy_reports_its_environment_variables(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("litellm_settings: {callbacks: [lago], global_disable_no_log_param: true}")
    assert (await examined(None, path))[1] == {"lago_callback", "callback_unseen"}
    async with proxy(LAGO, ["LagoLogger"]) as url:
        report, codes = await examined(url, path)
    assert codes == {"lago_callback"}
    assert "canary" not in json.dumps(report.as_object())
    path.write_text("litellm_settings: {callbacks: [generic_api], global_disable_no_log_param: true}")
    result = {
        "GENERIC_LOGGER_ENDPOINT": f"http://mb{USAGE_PATH}",
        "GENERIC_LOGGER_HEADERS": "Authorization=Bearer canary",
    }
    async with proxy([OURS[1] | {"variables": result, "read_only": False}], ["GenericAPILogger"]) as url:
        report, codes = await examined(url, path)
    assert codes == {"token_unknown", "max_retries_0", "timeout_long", "prompts_leave"}
    assert "canary" not in json.dumps(report.as_object())


async def test_an_older_proxy_is_read_too() -> None:
    async with proxy(OURS, ["GenericAPILogger"], "1.81.0", details=False) as url, http_client() as http:
        seen = await ask_proxy(http, f"{url}/", MASTER_KEY)
    assert (seen.version, seen.running) == ("1.81.0", {"GenericAPILogger"})
    assert [(one.name, one.kind) for one in seen.callbacks] == [("meterbridge", CallbackKind.GENERIC)]


async def test_a_proxy_that_cannot_be_asked_is_not_reported_as_ok() -> None:
    async with http_client(trust_env=False) as http:
        async with proxy(OURS, []) as url:
            with pytest.raises(Rejected, match="litellm_key_refused"):
                await ask_proxy(http, url, "sk-other")
            with pytest.raises(Unavailable, match="litellm_bad_answer"):
                await ask_proxy(http, f"{url}/elsewhere", MASTER_KEY)
        with pytest.raises(Unavailable, match="litellm_unreachable"):
            await ask_proxy(http, f"http://127.0.0.1:{free_port()}", MASTER_KEY)
    report, codes = await examined(f"http://127.0.0.1:{free_port()}")
    assert (codes, report.exit_code) == (set(), 2)


async def test_lago_is_judged_by_its_metric_plans_and_event_store(config: Path) -> None:
    async with lago_sandbox(api_key=KEY) as lago:
        assert (await examined(None, config, lago=lago))[1] == {"metric_missing"}
        metric = await lago.metric("ai_usage")
        await lago.plan("flat")
        assert (await examined(None, config, lago=lago))[1] == {"plan_missing"}
        dynamic = {"billable_metric_id": metric, "charge_model": "dynamic"}
        await lago.plan("dollars", charges=[dynamic])
        report, codes = await examined(None, config, lago=lago)
        assert (codes, report.exit_code) == (set(), 0)
        await lago.plan("euros", charges=[dynamic], amount_currency="EUR")
        assert (await examined(None, config, lago=lago))[1] == {"plan_currency"}
        report, codes = await examined(None, config, lago=lago, LAGO_API_KEY="another")
        assert (codes, report.exit_code) == ({"lago_key_refused"}, 1)


async def test_every_plan_is_checked_for_any_number_of_plans(config: Path) -> None:
    async with lago_sandbox() as lago:
        metric = await lago.metric("ai_usage")
        charges = [{"billable_metric_id": metric, "charge_model": "dynamic"}]
        for number in range(102):
            await lago.plan(f"plan-{number}", charges=charges, amount_currency="EUR" if number in {0, 101} else "USD")
        report, _ = await examined(None, config, lago=lago)
    assert {finding.sentence for finding in report.findings if finding.code == "plan_currency"} == {
        "The plan plan-0 is in EUR.",
        "The plan plan-101 is in EUR.",
    }


@pytest.mark.parametrize(("options", "said"), [({}, {"clickhouse_without_dedup"}), ({"dedup": True}, set())])
async def test_clickhouse_without_deduplication_is_reported(
    config: Path, options: dict[str, bool], said: set[str]
) -> None:
    async with lago_sandbox(store="clickhouse", **options) as lago:
        metric = await lago.metric("ai_usage")
        await lago.plan(charges=[{"billable_metric_id": metric, "charge_model": "dynamic"}])
        known = {"LAGO_CLICKHOUSE_DEDUP": "1"} if options else {}
        assert (await examined(None, config, lago=lago, **known))[1] == said


async def test_stored_api_calls_that_no_plan_charges_are_reported(config: Path) -> None:
    async with lago_sandbox() as lago:
        used, calls = await lago.metric("ai_usage"), await lago.metric("api_call")
        dynamic = {"billable_metric_id": used, "charge_model": "dynamic"}
        priced = {"billable_metric_id": calls, "charge_model": "standard", "properties": {"amount": "0.1"}}
        await lago.plan("ai_basic", charges=[dynamic])
        await lago.plan("with_calls", charges=[dynamic, priced])
        for org, plan in (("org_1", "ai_basic"), ("org_2", "with_calls")):
            await lago.save("/customers", "customer", external_id=org)
            created = {"external_customer_id": org, "external_id": f"sub_{org}", "plan_code": plan}
            await lago.save("/subscriptions", "subscription", **created)
        assert (await examined(None, config, lago=lago))[1] == set()
        sent = event(external_subscription_id="sub_org_2", code="api_call", transaction_id="priced")
        assert (await lago.post(sent)).status_code == 200
        assert (await examined(None, config, lago=lago))[1] == set()
        await lago.post(sent | {"external_subscription_id": "sub_org_1", "transaction_id": "not_priced"})
        report, codes = await examined(None, config, lago=lago)
    assert (codes, report.exit_code) == ({"stored_without_charge"}, 0)
    assert [finding.sentence for finding in report.findings if finding.code in codes] == [
        "Lago stores events of api_call for org_1, whose plans have no charge on it."
    ]


async def test_other_findings_are_reported_even_if_lago_does_not_list_its_events(config: Path) -> None:
    async with lago_sandbox() as lago:
        await lago.metric("api_call")
        await lago.fault(kind="status", status=503, method="GET")
        report, codes = await examined(None, config, lago=lago)
    assert codes == {"metric_missing"}
    [unread] = [patient.unread for patient in report.patients if patient.unread]
    assert unread.startswith("Lago does not list its events: ")


async def test_a_lago_that_does_not_answer_is_reported_as_unreadable(config: Path) -> None:
    async with lago_sandbox() as lago:
        pass
    report, codes = await examined(None, config, lago=lago)
    assert (codes, report.exit_code) == (set(), 2)


def doctor(*words: str, **environ: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *words], env={**GOOD, **environ})


def test_the_printed_configuration_is_right(config: Path) -> None:
    result = doctor("--config", str(config), "--no-lago", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [one["code"] for one in report["findings"]] == ["endpoint_unanswered"]  # no ingress runs there
    assert report["unread"] == []
    assert report["config"] == working_yaml()


async def test_the_recommended_configuration_is_printed_only_if_litellms_differs_or_is_unknown(config: Path) -> None:
    printed = "LiteLLM's config.yaml, version 1.108 or later, that loses least:"
    away = f"http://127.0.0.1:{free_port()}"
    for url, file, expected in ((None, config, False), (away, config, False), (away, None, True)):
        report, _ = await examined(url, file, KAFKA_REPLICATION_FACTOR="1")
        assert (printed in report_text(report)) is expected, (url, file)
    async with proxy(OURS, ["GenericAPILogger"], "2.0.0") as url:
        report, _ = await examined(url, config)  # the finding about the version does not concern the configuration
        assert printed not in report_text(report)
        assert printed in report_text((await examined(url))[0])  # a running proxy does not show its settings


def test_the_address_that_the_file_posts_to_is_kept(config: Path) -> None:
    there = "https://billing.example/webhook/litellm/usage"
    config.write_text(working_yaml(there).replace("max_retries: 5", "max_retries: 0"))
    result = doctor("--config", str(config), "--no-lago")
    assert result.exit_code == 1
    assert "LOSES MONEY  max_retries_0" in result.stdout
    assert "Stop LiteLLM in this order" in result.stdout
    assert f"endpoint: {there}" in result.stdout


def test_an_unreadable_file_gives_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    result = doctor("--config", str(tmp_path / "nowhere.yaml"), "--no-lago")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("meterbridge: ")
    assert "Traceback" not in result.output


def test_without_a_file_the_proxy_of_the_settings_is_asked() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    result = doctor("--no-lago", "--json", LITELLM_API_URL=address)
    assert result.exit_code == 2
    [unread] = json.loads(result.stdout)["unread"]
    assert address in unread["why"]


def test_the_documents_show_the_printed_configuration() -> None:
    block = f"```yaml\n{working_yaml()}```\n"
    for document in ("README.md", "docs/litellm.md"):
        assert (ROOT / document).read_text().count(block) == 1, document


def test_the_page_about_findings_is_current() -> None:
    """Run `python -m connectors.doctor.catalogue > docs/doctor.md`."""
    result = (ROOT / "docs" / "doctor.md").read_text()
    assert result == page()
    assert all(f"| `{code}` | `{kind.severity}` |" in result for code, kind in KINDS.items())


async def test_lago_gets_only_read_requests(config: Path) -> None:
    async with lago_sandbox() as lago:
        before = await lago.stats()
        await examined(None, config, lago=lago)
        assert await lago.stats() == before
