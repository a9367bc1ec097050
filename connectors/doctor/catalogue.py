"""The kinds of findings of the doctor, each with a stable code, a severity, a cause and a fix.

`python -m connectors.doctor.catalogue` prints docs/doctor.md.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from connectors.doctor.provider_key_kinds import PROVIDER_KEY_TEXTS
from connectors.doctor.right_kinds import MISSING_TEXTS, OTHER_TEXTS
from connectors.doctor.topic_kinds import TOPIC_TEXTS
from connectors.doctor.version_kinds import VERSION_TEXTS


class Severity(StrEnum):
    """How severe a finding is, the worst first.

    The first two happen in ordinary operation: at a restart, in a busy minute. `degraded` needs a further fault, or
    does not cost money. `ok` says that a setting is correct; it is the verdict if there is no worse finding.
    """

    MONEY_LOST = "money_lost"
    MONEY_DOUBLED = "money_doubled"
    DEGRADED = "degraded"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One kind of finding. Cause and fix are sentences that hold for each finding of the kind."""

    severity: Severity
    cause: str
    fix: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `sentence` says what was found, and where. It never contains a key or a token."""

    code: str
    sentence: str

    @property
    def severity(self) -> Severity:
        """The severity of its kind."""
        return KINDS[self.code].severity

    def as_object(self) -> dict[str, str]:
        """Return the finding as an object for JSON."""
        kind = KINDS[self.code]
        return {
            "code": self.code,
            "severity": kind.severity.value,
            "sentence": self.sentence,
            "cause": kind.cause,
            "fix": kind.fix,
        }


_LOST, _DOUBLED, _DEGRADED = Severity.MONEY_LOST, Severity.MONEY_DOUBLED, Severity.DEGRADED

LITELLM: Final = {
    "nothing_reaches_us": FindingKind(
        _LOST,
        "No callback of LiteLLM posts to `/webhook/litellm/usage`.",
        "Add the configuration below.",
    ),
    "callback_not_loaded": FindingKind(
        _LOST,
        "LiteLLM could not make a logger for a configured callback. It says so only in its log, when it starts.",
        "Give the callback an `endpoint` and `headers`, and restart LiteLLM.",
    ),
    "endpoint_or_headers_missing": FindingKind(
        _LOST,
        "A callback without an endpoint or without headers is left out with a warning under `success_callback`; under "
        "`callbacks` the proxy does not start.",
        "Give it both.",
    ),
    "max_retries_0": FindingKind(
        _LOST,
        "LiteLLM's default is 0: after one 503 or one refused connection up to 512 calls are lost.",
        "Set `max_retries: 5` in `callback_settings`; the environment variables of the plain `generic_api` callback cannot "
        "set it.",
    ),
    "auth_missing": FindingKind(
        _LOST,
        "The ingress answers 401 to a sender that it does not know, and LiteLLM drops the calls of a post with the answer 401.",
        "Send `Authorization: Bearer <one of WEBHOOK_TOKEN>`.",
    ),
    "token_unknown": FindingKind(
        _LOST,
        "The header that LiteLLM sends holds none of WEBHOOK_TOKEN: 401, and the calls are dropped.",
        "Use one of WEBHOOK_TOKEN, after the word `Bearer` and a space.",
    ),
    "webhook_callback": FindingKind(
        _LOST,
        "LiteLLM has no callback of this name. It accepts the setting without an error and sends nothing.",
        "Remove it, and report by `generic_api`.",
    ),
    "callback_no_name": FindingKind(
        _LOST,
        "LiteLLM's lists of callbacks contain names. A mapping there, with `callback_name` or `callback_vars`, makes no callback.",
        "List a name, and put its settings under `callback_settings`.",
    ),
    "lago_webhook_url": FindingKind(
        _LOST,
        "LiteLLM reads no such variable and sends nothing to it.",
        "Remove it; report by `generic_api`.",
    ),
    "openmeter_in_success_callback": FindingKind(
        _LOST,
        "LiteLLM 1.109 never makes the logger when `openmeter` is listed there, and sends nothing.",
        "List it under `callbacks`, or better report by `generic_api`.",
    ),
    "lago_callback": FindingKind(
        _LOST,
        "LiteLLM's `lago` callback posts once and never again, leaves out failed calls that cost money, and drops calls "
        "that name no customer.",
        "Report by `generic_api` instead.",
    ),
    "openmeter_callback": FindingKind(
        _LOST,
        "LiteLLM's `openmeter` callback posts once and never again, leaves out failed calls that cost money, and drops "
        "calls that name no customer.",
        "Report by `generic_api` instead.",
    ),
    "failures_unheard": FindingKind(
        _LOST,
        "Failed calls can cost money: a stream that its provider cut is reported as a failure with its tokens and cost.",
        "List the callback under `callbacks`, without `event_types`.",
    ),
    "successes_unheard": FindingKind(
        _LOST,
        "LiteLLM reports only failed calls to the callback.",
        "List the callback under `callbacks`, without `event_types`.",
    ),
    "no_log_open": FindingKind(
        _LOST,
        'Any client can avoid being billed with `"no-log": true` in its request: LiteLLM sends no event for it.',
        "`global_disable_no_log_param: true`.",
    ),
    "generic_api_v1": FindingKind(
        _LOST,
        "Its records hold Python texts instead of numbers, and failed calls crash it.",
        "Remove `generic_api_use_v1`.",
    ),
    "log_format_unknown": FindingKind(
        _LOST,
        "LiteLLM does not make a logger with a format it does not know.",
        "Remove `log_format`.",
    ),
    "old_version": FindingKind(
        _LOST,
        "Before 1.108 a flush took no lock: under ordinary load calls are lost, and others sent many times. "
        "Repeats are recognised, but lost calls are not found again.",
        "Upgrade LiteLLM to 1.108 or later.",
    ),
    "two_callbacks": FindingKind(
        _DOUBLED,
        "Each reports every call under ids of its own, so one call is counted as two.",
        "Keep one of them.",
    ),
    "lago_beside_us": FindingKind(
        _DOUBLED,
        "LiteLLM's `lago` callback posts to Lago what Meterbridge posts there too.",
        "Remove the `lago` callback.",
    ),
    "settings_unseen": FindingKind(
        _DEGRADED,
        "A running proxy does not show its `litellm_settings` and `callback_settings`: retries, headers, time-outs and "
        "switches were not checked.",
        "`meterbridge doctor --config config.yaml`, with `--url` as well.",
    ),
    "callback_unseen": FindingKind(
        _DEGRADED,
        "A callback of your own code, or one whose address is in LiteLLM's environment: where it posts cannot be seen.",
        "Check that it posts to `/webhook/litellm/usage`, and that no other callback does.",
    ),
    "other_config_runs": FindingKind(
        _DEGRADED,
        "The running proxy has other callbacks than the file: it was not restarted, or it keeps its settings in a database.",
        "Restart LiteLLM with the file.",
    ),
    "prompts_leave": FindingKind(
        _DEGRADED,
        "Prompts and answers are sent too. The ingress removes them before anything is stored, but the network carries them.",
        "`standard_logging_payload_excluded_fields`, with `messages` and `response` in it.",
    ),
    "spend_log_stopped": FindingKind(
        _DEGRADED,
        "LiteLLM then removes the field for its own spend writer too, which fails at every call (1.90 to 1.110): its database "
        "gets no row, its keys have no spend, and no backfill is possible. Without a database it does no harm.",
        "Remove `model_map_information` from `standard_logging_payload_excluded_fields`.",
    ),
    "timeout_short": FindingKind(
        _DEGRADED,
        "A busy ingress answers within seconds. With a shorter time-out LiteLLM sends the same bytes again, and drops them "
        "after the last retry.",
        "`timeout: 30`.",
    ),
    "timeout_long": FindingKind(
        _DEGRADED,
        "While a post waits for an answer LiteLLM sends nothing else, and calls that wait are lost with the process. The "
        "default is 600 s.",
        "`timeout: 30`.",
    ),
    "log_format_single": FindingKind(
        _DEGRADED,
        "Every call is a post of its own, and all of them are sent at the same moment.",
        "Remove `log_format`: arrays are the default.",
    ),
    "flush_too_late": FindingKind(
        _DEGRADED,
        "LiteLLM reads the variable before it reads its file, so in `environment_variables` it has no effect.",
        "Set it in the environment of the process, `DEFAULT_FLUSH_INTERVAL_SECONDS=1`: calls that wait for a flush are lost "
        "with the process.",
    ),
}
OWN: Final = {
    "no_webhook_credentials": FindingKind(
        _LOST,
        "With neither WEBHOOK_TOKEN nor WEBHOOK_SECRET the ingress does not start, unless ALLOW_UNAUTHENTICATED=1 says so.",
        "Set WEBHOOK_TOKEN, and send it from LiteLLM.",
    ),
    "signatures_only": FindingKind(
        _LOST,
        "LiteLLM signs nothing: with WEBHOOK_SECRET alone it gets 401, and drops the calls.",
        "Set WEBHOOK_TOKEN as well.",
    ),
    "lago_key_missing": FindingKind(
        _LOST,
        "Lago takes no event without a key: nothing is billed, and after 30 days Kafka forgets the events.",
        "Set LAGO_API_KEY.",
    ),
    "bodies_refused": FindingKind(
        _LOST,
        "A batch of LiteLLM's 512 records is up to 7.5 MB. Larger than MAX_BODY_BYTES it gets 413, and all of it is dropped.",
        "MAX_BODY_BYTES of 16 MiB or more; 64 MiB is the default.",
    ),
    "anybody_may_post": FindingKind(
        _DEGRADED,
        "Any client that reaches the ingress can have any customer billed.",
        "Set WEBHOOK_TOKEN, unless a proxy in front of it authenticates.",
    ),
    "client_names_payer": FindingKind(
        _DEGRADED,
        "A client of LiteLLM writes `end_user` itself: a call that names another customer is billed to that customer.",
        "CUSTOMER_ID_FIELDS=user,team,organization,key, which a key decides; or an id_kind on each mapping. Where only "
        "programs of your own call LiteLLM, nothing.",
    ),
    "signatures_never_expire": FindingKind(
        _DEGRADED,
        "A signature of the body alone has no time. A person who has recorded a post can repeat it, and calls without a time "
        "of their own are billed again after DEDUPE_RETENTION_HOURS.",
        "WEBHOOK_TIMESTAMP_REQUIRED=1, once every sender signs the time.",
    ),
    "short_master_key": FindingKind(
        _DEGRADED,
        "LITELLM_MASTER_KEY is the bearer token of the management API too. A short one can be guessed.",
        "A key of 32 random characters or more in LiteLLM, and here.",
    ),
    "one_copy": FindingKind(
        _DEGRADED,
        "With KAFKA_REPLICATION_FACTOR=1 usage that was accepted and not billed yet is lost if the broker's disk fails.",
        "Three brokers and KAFKA_REPLICATION_FACTOR=3, before the topics are created.",
    ),
    "spool_unset": FindingKind(
        _DEGRADED,
        "While Kafka is away the ingress answers 503, and LiteLLM's five retries last half a minute.",
        "SPOOL_PATH, on a persistent volume.",
    ),
    "dedupe_retention_short": FindingKind(
        _DEGRADED,
        "A call that arrives later than one hour less than DEDUPE_RETENTION_HOURS is rejected, until an operator requeues it.",
        "24 hours or more.",
    ),
}
LAGO: Final = {
    "lago_key_refused": FindingKind(
        _LOST,
        "Lago answers 401 or 403 to this LAGO_API_KEY: nothing is billed until Lago accepts it.",
        "Give Meterbridge a key of Lago's that may write events.",
    ),
    "metric_missing": FindingKind(
        _LOST,
        "Lago accepts events of a metric that it does not know, and never bills them.",
        "Create a billable metric with the code LAGO_EVENT_CODE, `sum_agg` over `unit`.",
    ),
    "metric_not_sum_of_unit": FindingKind(
        _LOST,
        "A dynamic charge bills the events that a sum metric counts, and the property that events bring is `unit`.",
        "Create another metric, `sum_agg` over `unit`, and name it in LAGO_EVENT_CODE.",
    ),
    "plan_missing": FindingKind(
        _LOST,
        "No plan charges the metric: events are counted and never billed.",
        "Create a plan with a `dynamic` charge on the metric, and subscribe the customers to it.",
    ),
    "plan_currency": FindingKind(
        _LOST,
        "LiteLLM's costs are dollars. Usage of an org in another currency is held, because Lago would read its cents as cents of "
        "that currency.",
        "A plan with `amount_currency` USD.",
    ),
    "clickhouse_without_dedup": FindingKind(
        _DOUBLED,
        "On ClickHouse without deduplication an event that is posted again, after an answer was lost, counts twice. "
        "It is looked up first, but that store shows events late.",
        "Have Lago's deduplication turned on for the organization, then set LAGO_CLICKHOUSE_DEDUP=true; if it is on, set that.",
    ),
    "lago_old": FindingKind(
        _DEGRADED,
        "Before 1.39 Lago refuses a batch for one event it has already, and stores the others half processed.",
        "Upgrade Lago to 1.39 or later.",
    ),
    "charge_not_dynamic": FindingKind(
        _DEGRADED,
        "Another model than `dynamic` bills Lago's own price of `unit` (tokens), not the cents in the events.",
        "A `dynamic` charge, unless the prices are meant to be in Lago.",
    ),
    "customer_without_charge": FindingKind(
        _DEGRADED,
        "No active subscription of these customers has a plan that charges the metric. Their usage is held as "
        "`no_charge`: Lago would accept it and never bill it.",
        "Subscribe the customers that use LLMs to a plan that charges it; ignore the others.",
    ),
    "several_that_charge": FindingKind(
        _DEGRADED,
        "Several running subscriptions of these customers charge the metric. Usage goes to the one whose id is stored "
        "with the org, else it is held as `ambiguous`.",
        "End all but one, or name the right one in the mapping (`external_subscription_id`).",
    ),
    "stored_without_charge": FindingKind(
        _DEGRADED,
        "The plans of these customers have no charge on the metric of other metered events, `api_call` for example. Lago stores "
        "such events and bills nothing. Meterbridge does not hold them, because they cost nothing by themselves. The newest 100 "
        "events on each metric are read. No plan of `meterbridge lago setup` has a charge on `api_call`.",
        "Add a charge on the metric in Lago, of any model but `dynamic`; ignore the finding where the calls are included in the "
        "plan's price.",
    ),
}
KAFKA = {code: FindingKind(Severity(severity), *texts) for code, (severity, *texts) in TOPIC_TEXTS.items()}
KAFKA |= {"kafka_right_missing": FindingKind(_LOST, *MISSING_TEXTS)}
KAFKA |= {code: FindingKind(_DEGRADED, *texts) for code, texts in OTHER_TEXTS.items()}
PROVIDER_KEYS: Final = {code: FindingKind(_DEGRADED, *texts) for code, texts in PROVIDER_KEY_TEXTS.items()}
VERSIONS: Final = {code: FindingKind(Severity(severity), *texts) for code, (severity, *texts) in VERSION_TEXTS.items()}
KINDS: Final = {**LITELLM, **VERSIONS, **OWN, **PROVIDER_KEYS, **KAFKA, **LAGO}

_HEAD: Final = """\
# What `meterbridge doctor` finds

<!-- Written by `python -m connectors.doctor.catalogue`; change connectors/doctor/catalogue.py instead. -->

`meterbridge doctor --config config.yaml` reads a configuration of LiteLLM's proxy, or asks a running one (`--url`, by
default `LITELLM_API_URL` with `LITELLM_MASTER_KEY`), the environment of Meterbridge, Kafka's topics and rights (where `KAFKA_BOOTSTRAP_SERVERS` is
set), Lago (unless `--no-lago`), and the stored provider keys (where `PROVIDER_KEYS_SECRET` is set).
It changes nothing. It prints its findings. Where LiteLLM's configuration has a finding or could not be read, it also prints the configuration, the
environment and the order of stopping LiteLLM that lose least: calls that LiteLLM has collected since its last flush are lost with its process.
With `--json` it prints one object, always with the configuration.

| exit code | means |
|---|---|
| 0 | nothing loses or doubles money; there may be findings that are `degraded` |
| 1 | something loses or doubles money |
| 2 | LiteLLM, Kafka or Lago could not be read, and nothing worse was found |

`money_lost` and `money_doubled` happen in ordinary operation: at a restart, in a busy minute. `degraded` needs
another fault, or costs something else than money. `ok` says what was looked up and is as it should be.

A running proxy shows its version, the names of its callbacks, those that have a logger, and the addresses of the built-in ones. It
does not show retries, headers, time-outs and switches: those are only in its file. Give both to have both checked.
"""


def page() -> str:
    """Return the text of docs/doctor.md."""
    lines = [_HEAD]
    chapters = {
        "LiteLLM": LITELLM,
        "LiteLLM's version": VERSIONS,
        "Meterbridge's own settings": OWN,
        "Users' provider keys": PROVIDER_KEYS,
    }
    chapters |= {"Kafka's topics and rights": KAFKA, "Lago": LAGO}
    for title, kinds in chapters.items():
        lines += [f"## {title}", "", "| code | severity | cause | what to do |", "|---|---|---|---|"]
        lines += [f"| `{code}` | `{kind.severity}` | {kind.cause} | {kind.fix} |" for code, kind in kinds.items()]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201  # this is what it is for
