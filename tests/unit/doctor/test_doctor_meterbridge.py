"""What the doctor reports about our own settings and about Lago, and how people and scripts read its report."""

from typing import Any

import pytest

from connectors.config.settings import Settings, load_settings
from connectors.doctor.catalogue import BY_SUBJECT, KINDS, Finding, Severity
from connectors.doctor.examination import ExaminationReport, ExaminedPart
from connectors.doctor.lago_rules import SeenLago, judge_lago
from connectors.doctor.own_rules import judge_own
from connectors.doctor.run import report_text
from connectors.lago.responses import Charge, Metric, Plan, Subscription

GOOD = {
    "WEBHOOK_TOKEN": "t",
    "LAGO_API_KEY": "k",
    "KAFKA_REPLICATION_FACTOR": "3",
    "SPOOL_PATH": "/data/spool.db",
    "HOST": "0.0.0.0",
    "CUSTOMER_ID_FIELDS": "user,team,organization,key",
    "LITELLM_MASTER_KEY": "sk-of-more-than-16-characters",
}
WITHOUT_TOKEN = {name: value for name, value in GOOD.items() if name != "WEBHOOK_TOKEN"}
OWN_CASES: list[tuple[dict[str, str], set[str]]] = [
    (GOOD, set()),
    (GOOD | {"WEBHOOK_SECRET": "s", "WEBHOOK_TIMESTAMP_REQUIRED": "1"}, set()),
    (GOOD | {"WEBHOOK_SECRET": "s"}, {"signatures_never_expire"}),
    (GOOD | {"CUSTOMER_ID_FIELDS": ""}, {"client_names_payer"}),
    (GOOD | {"CUSTOMER_ID_FIELDS": "key,end_user"}, {"client_names_payer"}),
    (GOOD | {"LITELLM_MASTER_KEY": "sk-1234"}, {"short_master_key"}),
    (WITHOUT_TOKEN, {"no_webhook_credentials"}),
    (WITHOUT_TOKEN | {"WEBHOOK_SECRET": "s", "WEBHOOK_TIMESTAMP_REQUIRED": "1"}, {"signatures_only"}),
    (WITHOUT_TOKEN | {"HOST": "127.0.0.1"}, {"no_webhook_credentials"}),
    (WITHOUT_TOKEN | {"ALLOW_UNAUTHENTICATED": "1"}, {"anybody_may_post"}),
    (GOOD | {"LAGO_API_KEY": ""}, {"lago_key_missing"}),
    (GOOD | {"KAFKA_REPLICATION_FACTOR": "1"}, {"one_copy"}),
    (GOOD | {"SPOOL_PATH": ""}, {"spool_unset"}),
    (GOOD | {"MAX_BODY_BYTES": "1MiB"}, {"bodies_refused"}),
    (GOOD | {"MAX_BODY_BYTES": "16MiB"}, set()),
    (GOOD | {"DEDUPE_RETENTION_HOURS": "23"}, {"dedupe_retention_short"}),
]


@pytest.mark.parametrize(("environ", "said"), OWN_CASES)
def test_each_wrong_setting_gives_its_finding_and_no_other(environ: dict[str, str], said: set[str]) -> None:
    assert {finding.code for finding in judge_own(load_settings(environ))} == said


def plan(code: str = "basic", currency: str = "USD", model: str = "dynamic", metric: str = "ai_usage") -> Plan:
    return Plan(code, currency, (Charge("seats", "standard"), Charge(metric, model)))


def lago(**fields: Any) -> SeenLago:
    seen = {"version": "v1.51.0", "event_store": "postgres", "metric": Metric("ai_usage", "sum_agg", "unit")}
    return SeenLago(**{**seen, "plans": (plan(), Plan("free", "EUR")), **fields})


def runs(external_id: str, plan_code: str = "basic", customer: str = "org_1") -> Subscription:
    return Subscription(external_id, plan_code=plan_code, external_customer_id=customer, status="active")


LAGO_CASES: list[tuple[SeenLago, set[str]]] = [
    (lago(), set()),
    (lago(event_store=None), set()),
    (lago(metric=None), {"metric_missing"}),
    (lago(metric=Metric("ai_usage", "count_agg")), {"metric_not_sum_of_unit"}),
    (lago(metric=Metric("ai_usage", "sum_agg", "tokens")), {"metric_not_sum_of_unit"}),
    (lago(metric=Metric("ai_usage", "max_agg", "unit")), {"metric_not_sum_of_unit"}),
    (lago(plans=()), {"plan_missing"}),
    (lago(plans=(plan(metric="other"),)), {"plan_missing"}),
    (lago(plans=(plan(), plan("euro", "EUR"))), {"plan_currency"}),
    (lago(plans=(plan(model="standard"),)), {"charge_not_dynamic"}),
    (lago(event_store="clickhouse"), {"clickhouse_without_dedup"}),
    (lago(version="v1.38.2"), {"lago_old"}),
    (lago(running=(runs("a"), runs("b", "seats", "acme"), runs("c", "basic", "acme"))), set()),
    (lago(running=(runs("a", "seats"),)), {"customer_without_charge"}),
    (lago(running=(runs("a"), runs("b"))), {"several_that_charge"}),
    (lago(running=(runs("a"),), stored=(("api_call", "a"),)), {"stored_without_charge"}),
    (lago(running=(runs("a"),), stored=(("seats", "a"),)), set()),
    (lago(running=(runs("a"),), stored=(("api_call", "ended"),)), set()),
]


@pytest.mark.parametrize(("seen", "said"), LAGO_CASES)
def test_each_wrong_state_of_lago_gives_its_finding_and_no_other(seen: SeenLago, said: set[str]) -> None:
    assert {finding.code for finding in judge_lago(seen, Settings())} == said


def test_clickhouse_with_deduplication_is_as_good_as_postgres() -> None:
    assert judge_lago(lago(event_store="clickhouse"), load_settings({"LAGO_CLICKHOUSE_DEDUP": "1"})) == []


def test_every_code_has_a_case() -> None:
    assert set[str]().union(*(said for _, said in OWN_CASES)) == BY_SUBJECT["own"].keys()
    assert set[str]().union(*(said for _, said in LAGO_CASES)) | {"lago_key_refused"} == BY_SUBJECT["lago"].keys()
    assert len(KINDS) == sum(map(len, BY_SUBJECT.values()))


def report(*codes: str, unread: str = "") -> ExaminationReport:
    return ExaminationReport(
        (ExaminedPart("LiteLLM", tuple(Finding(code, "Here.") for code in codes), unread),), "litellm_settings: {}\n"
    )


@pytest.mark.parametrize(
    ("found", "verdict", "code"),
    [
        (report(), Severity.OK, 0),
        (report("one_copy"), Severity.DEGRADED, 0),
        (report("one_copy", "two_callbacks"), Severity.MONEY_DOUBLED, 1),
        (report("two_callbacks", "max_retries_0", "one_copy"), Severity.MONEY_LOST, 1),
        (report(unread="no answer"), Severity.OK, 2),
        (report("one_copy", unread="no answer"), Severity.DEGRADED, 2),
        (report("max_retries_0", unread="no answer"), Severity.MONEY_LOST, 1),
    ],
)
def test_the_exit_code_says_whether_money_is_at_risk(found: ExaminationReport, verdict: Severity, code: int) -> None:
    assert (found.verdict, found.exit_code) == (verdict, code)


def test_the_worst_finding_comes_first_and_the_configuration_last() -> None:
    text = report_text(report("one_copy", "two_callbacks", "max_retries_0"))
    places = [text.index(word) for word in ("max_retries_0", "two_callbacks", "one_copy", "litellm_settings: {}")]
    assert places == sorted(places)
    assert text.splitlines()[-1] == "Findings: 1 LOSES MONEY, 1 DOUBLES MONEY, 1 degraded."


def test_a_check_that_could_not_run_is_not_reported_as_ok() -> None:
    assert "NOT READ  no answer" in report_text(report(unread="no answer"))
    assert "  ok" not in report_text(report(unread="no answer"))
    assert "  ok" in report_text(report())


def test_stored_events_without_a_charge_are_reported_once_by_metric_and_customer() -> None:
    stored = (("calls", "b"), ("api_call", "a"), ("api_call", "a"), ("api_call", "b"))
    running = (runs("a"), runs("b", customer="org_2"))
    assert [finding.sentence for finding in judge_lago(lago(running=running, stored=stored), Settings())] == [
        "Lago stores events of api_call for org_1, org_2, whose plans have no charge on it.",
        "Lago stores events of calls for org_2, whose plans have no charge on it.",
    ]


def test_of_many_customers_the_first_are_named_and_the_others_counted() -> None:
    many = tuple(runs(f"s{n}", "seats", f"org_{n}") for n in range(9))
    [finding] = judge_lago(lago(running=many), Settings())
    assert (
        finding.sentence
        == "No subscription of org_0, org_1, org_2, org_3, org_4 and 4 more customers charges ai_usage."
    )
