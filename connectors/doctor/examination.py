"""Runs one examination: reads LiteLLM, our settings, Kafka's topics and Lago, and checks each of them."""

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from connectors.config.addresses import bare_url
from connectors.config.connections import environment_of_others, lago_connections, revealed
from connectors.config.lago_connections import LagoConnection
from connectors.config.settings import Settings
from connectors.doctor.catalogue import LITELLM, Finding, Severity
from connectors.doctor.endpoint_rules import judge_endpoints
from connectors.doctor.kafka_rules import is_named, judge_topics
from connectors.doctor.lago_rules import SeenLago, judge_lago
from connectors.doctor.litellm_rules import judge_litellm
from connectors.doctor.own_rules import judge_own
from connectors.doctor.provider_key_rules import PART, judge_provider_keys
from connectors.doctor.rights_rules import judge_rights
from connectors.lago.client import LagoClient, LagoIntegrationError
from connectors.litellm.config import read_config
from connectors.litellm.proxy import ask_proxy
from connectors.litellm.recommended import ENDPOINT, ENVIRONMENT, STOPPING, working_yaml
from connectors.litellm.seen import Callback, CallbackKind, Proxy, is_unseen
from schemas.errors import Rejected, Unavailable

#: Exit codes.
FINE, MONEY, UNREAD = 0, 1, 2
_MONEY: Final = (Severity.MONEY_LOST, Severity.MONEY_DOUBLED)
_KEY_REFUSED: Final = ("http_401", "http_403")
#: By what the reason has in it.
_NEXT_STEPS: Final = {
    "litellm_unreachable": "Start the proxy, correct --url or LITELLM_API_URL, or give --config with its config.yaml.",
    "litellm_key_refused": "Set LITELLM_MASTER_KEY to general_settings.master_key of the proxy.",
    "litellm_bad_answer": "Look whether LiteLLM's proxy is at this address; then look into its log.",
    "LAGO_API_KEY": "Set LAGO_API_KEY, or leave Lago out with --no-lago.",
    "key_file": "Correct key_file of this organisation in LAGO_ORGANIZATIONS.",
    "not_lago": "Correct LAGO_API_URL: another server answers there. `curl $LAGO_API_URL/health`",
    "Lago does not": "Start Lago, or correct LAGO_API_URL: `curl $LAGO_API_URL/health`",
    "kafka_": "Start Kafka, or correct KAFKA_BOOTSTRAP_SERVERS and the KAFKA_SECURITY settings.",
    "postgres_denied": "Correct the name, the password or the rights of the account in DATABASE_URL.",
    "postgres_schema": "Run `meterbridge db migrate`.",
    "postgres_": "Start Postgres, or correct DATABASE_URL.",
}
_ANY_STEP: Final = "docs/errors.md has the next step for this reason."
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExaminedPart:
    """The findings in one examined part, or the reason why the part could not be read (`unread`)."""

    name: str
    findings: tuple[Finding, ...] = ()
    unread: str = ""

    @property
    def next_step(self) -> str:
        """What to do so that the part can be read."""
        return next((step for said, step in _NEXT_STEPS.items() if said in self.unread), _ANY_STEP)


@dataclass(frozen=True, slots=True)
class ExaminationReport:
    """All examined parts, and the configuration that LiteLLM should have.

    Fields:
        differs: whether LiteLLM's configuration has a finding, or could not be read.
        not_asked: what was left out, for people; `""` = nothing.
    """

    patients: tuple[ExaminedPart, ...]
    config: str
    differs: bool = True
    not_asked: str = ""

    @property
    def findings(self) -> list[Finding]:
        """The findings of all parts."""
        return [finding for patient in self.patients for finding in patient.findings]

    @property
    def verdict(self) -> Severity:
        """The worst severity of all findings."""
        return next(
            (severity for severity in Severity if any(f.severity is severity for f in self.findings)), Severity.OK
        )

    @property
    def exit_code(self) -> int:
        """1 = money is lost or doubled, also if another part could not be read; 2 = a part could not be read; else 0."""
        if self.verdict in _MONEY:
            return MONEY
        return UNREAD if any(patient.unread for patient in self.patients) else FINE

    def as_object(self) -> dict[str, Any]:
        """Return the report as an object for JSON."""
        return {
            "verdict": self.verdict.value,
            "findings": [
                {"of": patient.name, **finding.as_object()} for patient in self.patients for finding in patient.findings
            ],
            "unread": [
                {"of": patient.name, "why": patient.unread, "do": patient.next_step}
                for patient in self.patients
                if patient.unread
            ],
            "config": self.config,
            "environment": ENVIRONMENT,
            "stopping": list(STOPPING),
        }


async def examine(
    own: Settings,
    http: httpx.AsyncClient,
    config: Path | None,
    url: str | None,
    *,
    with_lago: bool,
    principal: str = "",
) -> ExaminationReport:
    """Examine LiteLLM through its file, its API, or both; if both are given, compare them.

    Args:
        principal: how Kafka names the roles' accounts; `""` = their rights are not examined.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    proxy = None if config is None else read_config(config)
    patients = []
    unread = ""
    running: Proxy | None = None
    if url is not None:
        key = revealed(own.litellm_master_key)
        running, unread = await _read(ask_proxy(http, url, key))
    known = proxy or running
    findings = list(_both(proxy, running))
    if known:
        seen = replace(_merged(proxy, running), surroundings=environment_of_others())
        findings += [*judge_litellm(seen, own), *await judge_endpoints(seen, http)]
    differs = not known or any(finding.code in LITELLM for finding in findings)
    patients.append(
        ExaminedPart(
            f"LiteLLM, {' and '.join(map(str, filter(None, (config, url and bare_url(url)))))}",
            tuple(findings),
            unread,
        )
    )
    patients.append(ExaminedPart("Meterbridge's settings", tuple(judge_own(own))))
    if is_named(own):
        topic_findings, unread = await _read(judge_topics(own))
        at = f"KAFKA_BOOTSTRAP_SERVERS={own.kafka_bootstrap_servers}"
        patients.append(ExaminedPart(f"Kafka's topics, {at}", topic_findings or (), unread))
        if principal and not unread:
            right_findings, unread = await _read(judge_rights(own, principal))
            if right_findings is not None or unread:
                patients.append(ExaminedPart(f"Kafka's rights, {at}", right_findings or (), unread))
    if own.provider_keys_secret and own.postgres_url:
        key_findings, unread = await _read(judge_provider_keys(own))
        patients.append(ExaminedPart(PART, tuple(key_findings or ()), unread))
    if with_lago:
        patients += [await _lago(own, one, http) for one in lago_connections(own)]
    not_asked = "" if is_named(own) else "Kafka was not examined: KAFKA_BOOTSTRAP_SERVERS is not set."
    return ExaminationReport(tuple(patients), working_yaml(_endpoint(proxy)), differs, not_asked)


def _merged(proxy: Proxy | None, running: Proxy | None) -> Proxy:
    """Return the proxy of the file, with the data that only a running proxy shows: its version, loggers and
    environment.
    """
    if proxy is None or running is None:
        return proxy or running or Proxy()
    by_name = {callback.name: callback for callback in running.callbacks}
    callbacks = tuple(_completed(callback, by_name.get(callback.name)) for callback in proxy.callbacks)
    return replace(proxy, callbacks=callbacks, version=running.version, running=running.running)


def _completed(written: Callback, runs: Callback | None) -> Callback:
    if runs is None:
        return written
    return replace(written, address=written.address or runs.address, headers=written.headers or runs.headers)


def _both(proxy: Proxy | None, running: Proxy | None) -> Iterable[Finding]:
    if proxy is None or running is None:
        return
    written, runs = ({callback.name for callback in either.callbacks} for either in (proxy, running))
    if written != runs:
        yield Finding("other_config_runs", f"The file has {_named(written)}; the running proxy has {_named(runs)}.")


def _named(callbacks: Iterable[str]) -> str:
    return ", ".join(sorted(callbacks)) or "no callbacks"


def _endpoint(proxy: Proxy | None) -> str:
    """Return the address in the file, if it is the ingress's."""
    known = (one.address for one in (proxy.of(CallbackKind.GENERIC) if proxy else ()) if one.reaches_us())
    return next((address for address in known if address and not is_unseen(address)), ENDPOINT)


async def _lago(own: Settings, connection: LagoConnection, http: httpx.AsyncClient) -> ExaminedPart:
    name = f"Lago, {bare_url(connection.url)}"
    if not connection.is_default:
        name = f"Lago's organisation {connection.organization}, {bare_url(connection.url)}"
        own = own.model_copy(update={"lago_clickhouse_dedup": connection.clickhouse_dedup})
    if not connection.key():
        what = "LAGO_API_KEY is not set." if connection.is_default else "Its key_file cannot be read."
        return ExaminedPart(name, unread=what)
    lago = LagoClient(http, connection.url, connection.key, organization=connection.organization)
    try:
        store = (await lago.organization()).events_store
        metric, plans = await lago.metric(own.lago_event_code), await lago.plans()
        running = tuple(await lago.subscriptions())
    except LagoIntegrationError as error:
        if error.reason in _KEY_REFUSED:
            return ExaminedPart(name, (Finding("lago_key_refused", f"Lago answers {error.reason[5:]}."),))
        return ExaminedPart(name, unread=f"Lago does not answer: {error}.")
    stored, unread = await _stored(lago, own.lago_event_code)
    seen = SeenLago(await _version(lago), store, metric, tuple(plans), running, stored)
    return ExaminedPart(name, tuple(judge_lago(seen, own)), unread)


async def _stored(lago: LagoClient, usage_code: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Return code and external subscription id of the newest events on each metric except the usage metric, or why they
    are unread.
    """
    try:
        others = [metric.code for metric in await lago.metrics() if metric.code != usage_code]
        events = {code: await lago.newest_events(code) for code in others}
    except LagoIntegrationError as error:
        return (), f"Lago does not list its events: {error}."
    return tuple((code, event.external_subscription_id or "") for code in others for event in events[code]), ""


async def _version(lago: LagoClient) -> str:
    """Return Lago's version; `""` = a proxy in front of Lago hides it."""
    try:
        return await lago.version()
    except LagoIntegrationError:
        return ""


async def _read(asking: Awaitable[T]) -> tuple[T | None, str]:
    """Return the result, or why it could not be read."""
    try:
        return await asking, ""
    except (Rejected, Unavailable) as error:
        return None, str(error)
