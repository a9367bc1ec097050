"""What the doctor reports about a LiteLLM configuration: one wrong line, one finding; for the product's own YAML no
finding.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import yaml

from connectors.config.settings import Settings, load_settings
from connectors.doctor.catalogue import BY_SUBJECT, KINDS, LITELLM, Finding, Severity
from connectors.doctor.examination import ExaminationReport
from connectors.doctor.litellm_rules import judge_litellm
from connectors.doctor.run import report_text
from connectors.litellm.config import proxy_of
from connectors.litellm.recommended import ENVIRONMENT, STOP_WAIT_S, working_yaml
from connectors.litellm.seen import Proxy

OWN = load_settings({"WEBHOOK_TOKEN": "new,old", "LAGO_API_URL": "http://lago:3000"})
ELSEWHERE = "https://logs.example/ingest"
#: A form that LiteLLM does not have.
OBJECT = {
    "callback_name": "webhook",
    "callback_type": "webhook",
    "callback_vars": {"webhook_url": ELSEWHERE, "webhook_secret": "hushed-secret"},
}
#: What a running proxy of version 1.109.1 that posts here says of its loggers.
RUNNING = frozenset({"GenericAPILogger", "ServiceLogging", "ResponsesIDSecurity"})
Config = dict[str, Any]


def working() -> Config:
    parsed: Config = yaml.safe_load(working_yaml())
    return parsed


def codes(proxy: Proxy, own: Settings = OWN) -> set[str]:
    """Without the findings about the version: test_doctor_versions.py."""
    return {finding.code for finding in judge_litellm(proxy, own)} - BY_SUBJECT["versions"].keys()


def setting(**settings: Any) -> Callable[[Config], None]:
    """Change `litellm_settings`; None removes a key."""

    def change(config: Config) -> None:
        _apply(config["litellm_settings"], settings)

    return change


def entry(**settings: Any) -> Callable[[Config], None]:
    """Change the callback's own entry; None removes it."""

    def change(config: Config) -> None:
        _apply(config["callback_settings"]["meterbridge"], settings)

    return change


def leaving_out(field: str) -> Callable[[Config], None]:
    """Leave one more field out of the records."""

    def change(config: Config) -> None:
        config["litellm_settings"]["standard_logging_payload_excluded_fields"].append(field)

    return change


def second(**settings: Any) -> Callable[[Config], None]:
    """Another callback of the same kind after the first."""

    def change(config: Config) -> None:
        config["litellm_settings"]["callbacks"].append("another")
        config["callback_settings"]["another"] = {**config["callback_settings"]["meterbridge"], **settings}

    return change


def instead(*callbacks: str, **environment: str) -> Callable[[Config], None]:
    """Other callbacks without an entry, and the environment variables that the file sets."""

    def change(config: Config) -> None:
        config["litellm_settings"]["callbacks"] = list(callbacks)
        config.pop("callback_settings")
        config["environment_variables"] = environment

    return change


def beside(name: str, **environment: str) -> Callable[[Config], None]:
    """A built-in callback in addition to ours."""

    def change(config: Config) -> None:
        config["litellm_settings"]["callbacks"].append(name)
        config["environment_variables"] = environment

    return change


def headers_in_the_file(value: str) -> Callable[[Config], None]:
    """The header is in a variable that the file itself sets."""

    def change(config: Config) -> None:
        config["environment_variables"] = {"METERBRIDGE_AUTHORIZATION": value}

    return change


def _apply(settings: Config, changes: Config) -> None:
    settings.update(changes)
    for name in [name for name, value in changes.items() if value is None]:
        del settings[name]


PLAIN = {"GENERIC_LOGGER_ENDPOINT": "http://mb:8080/webhook/litellm/usage"}
HERE, OPENMETER = "http://mb:8080", "http://mb:8080/openmeter"

#: What is done to the working configuration, and everything that is then said.
WRONG: list[tuple[Callable[[Config], None], set[str]]] = [
    (entry(max_retries=None), {"max_retries_0"}),
    (entry(max_retries=0), {"max_retries_0"}),
    (entry(max_retries="0"), {"max_retries_0"}),
    (entry(headers={"X-Source": "litellm"}), {"auth_missing"}),
    (entry(headers=None), {"endpoint_or_headers_missing", "auth_missing"}),
    (entry(endpoint=None), {"endpoint_or_headers_missing", "callback_unseen"}),
    (entry(headers={"Authorization": "Bearer other"}), {"token_unknown"}),
    (entry(headers={"Authorization": "new"}), {"bearer_missing"}),
    (entry(headers={"Authorization": "Token old"}), {"bearer_missing"}),
    (entry(headers={"Authorization": "os.environ/METERBRIDGE_AUTH"}), {"header_unseen"}),
    (headers_in_the_file("new"), {"bearer_missing"}),
    (headers_in_the_file("Bearer other"), {"token_unknown"}),
    (entry(endpoint="http://mb:8080/webhook/litelm/usage"), {"nothing_reaches_us", "word_misspelt"}),
    (entry(endpoint="http://mb:8080"), {"nothing_reaches_us", "word_misspelt"}),
    (entry(max_retries=None, max_retry=5), {"max_retries_0", "word_misspelt"}),
    (entry(callback_type=None, callback_typ="generic_api"), {"nothing_reaches_us", "word_misspelt"}),
    (entry(callback_type="generic-api"), {"nothing_reaches_us", "word_misspelt"}),
    (entry(headers={"Authorisation": "Bearer new"}), {"auth_missing", "word_misspelt"}),
    (setting(callbacks=["meterbrige"]), {"nothing_reaches_us", "word_misspelt"}),
    (setting(callbacks=None, callback=["meterbridge"]), {"nothing_reaches_us", "word_misspelt"}),
    (
        lambda config: config.update(litellm_setting=config.pop("litellm_settings")),
        {"nothing_reaches_us", "no_log_open", "word_misspelt"},
    ),
    (entry(endpoint=ELSEWHERE), {"nothing_reaches_us"}),
    (entry(endpoint="os.environ/WHERE"), {"callback_unseen"}),
    (entry(event_types=["llm_api_success"]), {"failures_unheard"}),
    (entry(event_types=["llm_api_failure"]), {"successes_unheard"}),
    (entry(event_types=[]), {"failures_unheard", "successes_unheard"}),
    (entry(timeout=None), {"timeout_long"}),
    (entry(timeout=600), {"timeout_long"}),
    (entry(timeout=5), {"timeout_short"}),
    (entry(log_format="single"), {"log_format_single"}),
    (entry(log_format="csv"), {"log_format_unknown"}),
    (setting(callbacks=[]), {"nothing_reaches_us"}),
    (setting(callbacks=None), {"nothing_reaches_us"}),
    (setting(callbacks=None, success_callback=["meterbridge"]), {"failures_unheard"}),
    (setting(callbacks=None, failure_callback=["meterbridge"]), {"successes_unheard"}),
    (setting(success_callback=["webhook"]), {"webhook_callback"}),
    (setting(callbacks=["webhook"]), {"webhook_callback", "nothing_reaches_us"}),
    (setting(callbacks=["meterbridge", OBJECT]), {"callback_no_name"}),
    (setting(callbacks=[OBJECT]), {"callback_no_name", "nothing_reaches_us"}),
    (setting(success_callback=OBJECT), {"callback_no_name"}),
    (setting(callback_vars={"lago_webhook_url": ELSEWHERE}), {"lago_webhook_url"}),
    (setting(success_callback=["openmeter"]), {"openmeter_in_success_callback"}),
    (setting(global_disable_no_log_param=None), {"no_log_open"}),
    (setting(global_disable_no_log_param="true"), {"no_log_open"}),
    (setting(generic_api_use_v1=True), {"generic_api_v1"}),
    (setting(standard_logging_payload_excluded_fields=None), {"prompts_leave"}),
    (setting(standard_logging_payload_excluded_fields=["messages"]), {"prompts_leave"}),
    (leaving_out("model_map_information"), {"spend_log_stopped"}),
    (second(), {"two_callbacks"}),
    (beside("generic_api", **PLAIN), {"two_callbacks", "max_retries_0", "timeout_long"}),
    (beside("openmeter", OPENMETER_API_ENDPOINT=OPENMETER), {"two_callbacks", "openmeter_callback"}),
    (beside("openmeter"), {"callback_unseen"}),
    (beside("lago", LAGO_API_BASE=HERE), {"two_callbacks", "lago_callback"}),
    (beside("lago", LAGO_API_BASE="http://lago:3000/"), {"lago_beside_us"}),
    (beside("lago", LAGO_API_BASE="http://user@LAGO:3000"), {"lago_beside_us"}),
    (beside("lago", LAGO_API_BASE="https://api.eu.getlago.com"), {"lago_beside_us"}),
    (beside("lago"), {"lago_beside_us", "lago_callback"}),
    (instead("lago", LAGO_API_BASE=HERE), {"lago_callback"}),
    (instead("lago"), {"lago_callback", "callback_unseen"}),
    (instead("lago", LAGO_API_BASE="http://lago:3000"), {"nothing_reaches_us"}),
    (instead("openmeter", OPENMETER_API_ENDPOINT=OPENMETER), {"openmeter_callback"}),
    (instead("generic_api", **PLAIN), {"max_retries_0", "timeout_long"}),
    (instead("generic_api"), {"callback_unseen", "max_retries_0", "timeout_long"}),
    (
        instead("generic_api", GENERIC_LOGGER_HEADERS="Authorization=Bearer x,X-A=b", **PLAIN),
        {"token_unknown", "max_retries_0", "timeout_long"},
    ),
    (instead("our_code.handler"), {"callback_unseen"}),
    (instead("langfuse"), {"nothing_reaches_us"}),
    (lambda config: config.update(environment_variables={"DEFAULT_BATCH_SIZE": 5}), {"flush_too_late"}),
]

#: What changes nothing.
RIGHT: list[Callable[[Config], None]] = [
    lambda _: None,
    entry(headers={"authorization": "bearer old"}),
    entry(max_retries="3", timeout="30", log_format="ndjson"),
    entry(max_retries="os.environ/RETRIES", timeout="os.environ/TIMEOUT"),
    entry(endpoint="https://billing.example/mb/webhook/litellm/usage/"),
    entry(event_types=["llm_api_success", "llm_api_failure"]),
    headers_in_the_file("Bearer old"),
    setting(callbacks="meterbridge"),
    setting(service_callbacks=["prometheus_system"], cache=True, set_verbose=False),
    lambda config: config.update(router_settings={}, guardrails=[], general_settings={"master_key": "x"}),
    setting(callbacks=None, success_callback=["meterbridge"], failure_callback=["meterbridge"]),
    setting(callbacks=["meterbridge", "langfuse", "prometheus", "our_code.handler"]),
    setting(generic_logger_headers={"Authorization": "Bearer new"}),
    second(endpoint=ELSEWHERE, max_retries=0, headers={}, event_types=["llm_api_success"]),
    beside("openmeter", OPENMETER_API_ENDPOINT="https://openmeter.cloud"),
]


@pytest.mark.parametrize(
    ("change", "said"), WRONG, ids=[f"{n}-{'-'.join(sorted(s))}" for n, (_, s) in enumerate(WRONG)]
)
def test_each_wrong_line_gives_its_finding_and_no_other(change: Callable[[Config], None], said: set[str]) -> None:
    config = working()
    change(config)
    assert codes(proxy_of(config)) == said


@pytest.mark.parametrize("change", RIGHT)
def test_a_configuration_that_loses_nothing_has_no_finding(change: Callable[[Config], None]) -> None:
    """A doctor that reports something everywhere is ignored."""
    config = working()
    change(config)
    assert codes(proxy_of(config)) == set()


@pytest.mark.parametrize(
    ("value", "said"), [("Bearer new", set()), ("new", {"bearer_missing"}), ("Bearer other", {"token_unknown"})]
)
def test_a_header_is_checked_if_the_doctor_has_the_variable_too(value: str, said: set[str]) -> None:
    config = working()
    entry(headers={"Authorization": "os.environ/OUR_HEADER"})(config)
    assert codes(replace(proxy_of(config), surroundings={"OUR_HEADER": value})) == said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting(callbacks=["meterbrige"]), ("meterbrige", "meterbridge")),
        (entry(max_retries=None, max_retry=5), ("callback_settings.meterbridge.max_retry", "max_retries")),
        (entry(endpoint="http://mb:8080/webhook/litelm/usage"), ("/webhook/litelm/usage", "/webhook/litellm/usage")),
        (
            entry(headers={"Authorization": "os.environ/METERBRIDGE_AUTH"}),
            ("METERBRIDGE_AUTH of", "METERBRIDGE_AUTHORIZATION"),
        ),
    ],
)
def test_a_finding_names_the_wrong_word_and_the_right_one(
    change: Callable[[Config], None], words: tuple[str, str]
) -> None:
    config = working()
    change(config)
    said = " ".join(finding.sentence for finding in judge_litellm(proxy_of(config), OWN))
    assert all(word in said for word in words), said


def test_headers_for_all_callbacks_replace_the_callbacks_own() -> None:
    config = working()
    entry(headers={"X-Source": "litellm"})(config)
    setting(generic_logger_headers={"Authorization": "Bearer new"})(config)
    assert codes(proxy_of(config)) == set()


def test_without_authentication_no_header_is_missing() -> None:
    config = working()
    entry(headers={})(config)
    assert codes(proxy_of(config), load_settings({"ALLOW_UNAUTHENTICATED": "1"})) == set()


def test_without_a_configured_token_no_token_is_wrong() -> None:
    config = working()
    entry(headers={"Authorization": "Bearer other"})(config)
    assert codes(proxy_of(config), Settings()) == set()


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("1.81.0", True),
        ("1.106.10", True),
        ("1.107.0", True),
        ("1.108.0", False),
        ("1.109.1", False),
        ("2.0.0", False),
        ("dev", False),
        (None, False),
    ],
)
def test_versions_whose_flush_takes_no_lock_are_reported(version: str | None, old: bool) -> None:
    """Compared as numbers: 1.81 is older than 1.108."""
    assert codes(replace(proxy_of(working()), version=version)) == ({"old_version"} if old else set())


def test_a_logger_that_the_running_proxy_did_not_create_is_reported() -> None:
    proxy = proxy_of(working())
    assert codes(replace(proxy, running=RUNNING)) == set()
    assert codes(replace(proxy, running=RUNNING - {"GenericAPILogger"})) == {"callback_not_loaded"}


def test_a_setting_that_a_running_proxy_does_not_show_is_not_judged() -> None:
    """Otherwise a proxy that loses nothing would be reported to have no retries."""
    seen = replace(proxy_of(working()), settings=None)
    hidden = replace(seen.callbacks[0], settings={"callback_type": "generic_api"}, address=None, headers=None)
    assert codes(replace(seen, callbacks=(hidden,), running=RUNNING)) == {"settings_unseen", "callback_unseen"}


def test_every_code_about_litellm_has_a_case() -> None:
    cases = set[str]().union(*(said for _, said in WRONG))
    apart = {"old_version", "callback_not_loaded", "settings_unseen", "other_config_runs"}
    assert cases | apart == LITELLM.keys()


def test_no_finding_holds_a_token_or_a_header() -> None:
    config = deepcopy(working())
    entry(headers={"Authorization": "Bearer canary"}, endpoint="http://user:canary@mb/webhook/litellm/usage")(config)
    beside("lago", LAGO_API_BASE="http://canary@lago:3000", LAGO_API_KEY="canary")(config)
    found = judge_litellm(proxy_of(config), load_settings({"WEBHOOK_TOKEN": "canary-too", "LAGO_API_KEY": "canary"}))
    assert found
    assert "canary" not in repr(found)


def test_every_finding_has_a_severity_a_cause_and_a_next_step() -> None:
    for code, kind in KINDS.items():
        result = Finding(code, "Here.").as_object()
        assert result == {
            "code": code,
            "severity": kind.severity.value,
            "sentence": "Here.",
            "cause": kind.cause,
            "fix": kind.fix,
        }
        assert (kind.severity is Severity.OK) == (code == "version_known")
        assert all(text.endswith((".", ";")) and text[0] != " " for text in (kind.cause, kind.fix)), code


def test_the_report_says_how_to_stop_the_proxy_and_promises_no_more() -> None:
    """A SIGTERM without a wait lost 8 of 8 calls under a configuration that was reported to lose nothing."""
    report = ExaminationReport((), working_yaml())
    for text in (report_text(report), json.dumps(report.as_object())):
        assert "loses nothing" not in text
        assert "DEFAULT_FLUSH_INTERVAL_SECONDS" in text
        places = [text.index(word) for word in ("Stop sending traffic", "Wait 3 s", "Send SIGTERM")]
        assert places == sorted(places)
    assert "DEFAULT_FLUSH_INTERVAL_SECONDS=1" in report_text(report)
    assert "that loses least" in report_text(report)


def test_the_recommended_wait_before_a_stop_is_longer_than_a_flush() -> None:
    assert float(ENVIRONMENT["DEFAULT_FLUSH_INTERVAL_SECONDS"]) * 2 < STOP_WAIT_S
