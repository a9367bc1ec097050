"""For each alarm the series that make it fire alone, and similar ones that do not: input of `promtool test rules`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Series = Mapping[str, str]
#: Samples of each series, one a step; the rules are evaluated at the last one.
SAMPLES: Final = 60
DAY_S: Final = 86_400


def stays(value: float) -> str:
    """Return a series that has the same value at each step."""
    return f"{value}+0x{SAMPLES}"


def since(value: float, steps: int, before: float = 0) -> str:
    """`value` at the last `steps` steps, `before` until then."""
    return f"{before}+0x{SAMPLES - steps} {value}+0x{steps - 1}"


def grows(by: float, start: float = 0) -> str:
    """The value increases by `by` at each step."""
    return f"{start}+{by}x{SAMPLES}"


def counts(value: float = 1, steps: int = 5) -> str:
    """A counter that rose from 0 some steps ago."""
    return since(value, steps)


def appears(steps: int) -> str:
    """1 from some steps ago on, no sample before."""
    return f"_x{SAMPLES - steps + 1} 1+0x{steps - 1}"


def never() -> str:
    """No sample."""
    return f"_x{SAMPLES}"


def disappeared(steps: int, before: float = 1) -> str:
    """A series that was scraped until some steps ago."""
    return f"{before}+0x{SAMPLES - steps} stale _x{steps - 1}"


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `fires` makes the alarm fire and no other, `quiet` makes none fire. `step`: the length of a step."""

    fires: Series
    quiet: Series
    step: str = "1m"


ROLE: Final = 'meterbridge_role{instance="%s:9090", role="%s"}'
_ROLES: Final = ("webhooks", "api", "meter", "sink", "retry", "project", "canary")
CANARY_POSTED: Final = "meterbridge_canary_posted_total"
CANARY_FAILING: Final = 'meterbridge_canary_failing{reason="%s"}'
CANARY_WRONG: Final = 'meterbridge_canary_calls_total{result="wrong_amount"}'
ACCEPTED: Final = 'meterbridge_ingress_elements_total{outcome="accepted"}'
UNPRICED: Final = 'meterbridge_calls_total{decision="unpriced"}'
REJECTED: Final = 'meterbridge_calls_total{decision="rejected"}'
IMPLAUSIBLE: Final = 'meterbridge_doubtful_calls_total{reason="implausible_cost"}'
HALTED: Final = 'meterbridge_partition_halted{topic="litellm.usage.raw", partition="3", reason="%s"}'
REFUSED: Final = 'lago_api_requests_total{method="POST", status="401"}'
CA: Final = 'meterbridge_certificate_expires_seconds{setting="KAFKA_SSL_CAFILE"}'
LAG: Final = 'meterbridge_projector_lag_seconds{topic="litellm.usage.enriched"}'


def waits(what: str, topic: str) -> str:
    """The series about waiting records in a topic."""
    return f'meterbridge_waiting_{what}{{topic="{topic}"}}'


#: An installation in which all is well.
HEALTHY: Final[Series] = {
    **{ROLE % (own, role): stays(int(own == role)) for own in _ROLES for role in _ROLES},
    'up{job="meterbridge", instance="meter:9090"}': stays(1),
    ACCEPTED: grows(100),
    'meterbridge_ingress_elements_total{outcome="bad_cost"}': stays(0),
    'webhook_requests_total{source="litellm", status="202"}': grows(100),
    'webhook_requests_total{source="litellm", status="400"}': stays(0),
    "meterbridge_spool_bytes": stays(0),
    "meterbridge_spool_max_bytes": stays(1e9),
    REJECTED: stays(3),
    UNPRICED: stays(0),
    IMPLAUSIBLE: stays(0),
    'lago_api_requests_total{method="POST", status="200"}': grows(10),
    REFUSED: stays(0),
    'meterbridge_ledger_imbalance{law="received", unit="usd"}': stays(0),
    "meterbridge_ledgers_open": stays(6),
    "meterbridge_lago_breaker_state": stays(0),
    'meterbridge_held_cost_usd{reason="no_mapping"}': stays(50),
    "meterbridge_held_oldest_seconds": stays(4000),
    "active_customers_total": stays(100),
    **{waits(what, topic): stays(0) for what in ("oldest_seconds", "retention_ratio") for topic in ("raw", "events")},
    'meterbridge_table_staleness_seconds{table="orgs"}': stays(1),
    "meterbridge_credits_imbalance_usd": stays(0),
    "meterbridge_credits_overdraft_usd": stays(7),
    LAG: stays(2),
    CA: stays(90 * DAY_S),
    CANARY_POSTED: grows(1),
    CANARY_FAILING % "not_billed": stays(0),
    CANARY_WRONG: stays(0),
    'meterbridge_build_info{version="1"}': stays(1),
}


def _counter(series: str, quiet: Series | None = None) -> Case:
    """An alarm of a counter that increases; by default a constant high value does not fire it."""
    return Case({series: counts()}, quiet or {series: stays(7)})


CASES: Final[dict[str, Case]] = {
    # Half an hour a step: thirty hours.
    "MeterbridgeNothingArrives": Case(
        # The canary continues; too few of yesterday's calls came from others.
        {ACCEPTED: f"0+130x{SAMPLES - 3} {130 * (SAMPLES - 3) + 30}+30x2", CANARY_POSTED: grows(30)},
        {
            ACCEPTED: f"0+31x{SAMPLES - 3} {31 * (SAMPLES - 3)}+0x2",
            CANARY_POSTED: f"0+30x{SAMPLES - 3} {30 * (SAMPLES - 3)}+0x2",
        },
        step="30m",
    ),
    "MeterbridgeIngressRefuses": Case(
        {'webhook_requests_total{source="litellm", status="503"}': grows(1)},
        {'webhook_requests_total{source="litellm", status="503"}': counts(steps=10)},
    ),
    "MeterbridgeSendersUnauthorized": Case(
        {'webhook_requests_total{source="litellm", status="401"}': counts(steps=10)},
        {'webhook_requests_total{source="litellm", status="401"}': counts(steps=2)},
    ),
    "MeterbridgeBodiesRefused": Case(
        {
            'webhook_requests_total{source="litellm", status="400"}': counts(3),
            'meterbridge_ingress_elements_total{outcome="not_json"}': counts(3),
        },
        {'webhook_requests_total{source="litellm", status="413"}': stays(7)},
    ),
    "MeterbridgeUsageRejected": Case(
        {'meterbridge_ingress_elements_total{outcome="bad_cost"}': counts()},
        {'meterbridge_ingress_elements_total{outcome="ignored"}': grows(5)},
    ),
    "MeterbridgeSpooling": Case(
        {"meterbridge_spool_bytes": since(1000, 7)}, {"meterbridge_spool_bytes": since(1000, 3)}
    ),
    "MeterbridgeSpoolFillsUp": Case(
        {"meterbridge_spool_bytes": since(6e8, 7)},
        {"meterbridge_spool_bytes": stays(0), "meterbridge_spool_max_bytes": stays(0)},
    ),
    "MeterbridgeConnectionsFull": Case(
        {'meterbridge_connections_closed_total{cause="full"}': counts(steps=10)},
        {'meterbridge_connections_closed_total{cause="silent"}': counts(steps=10)},
    ),
    "MeterbridgeClockWrong": _counter("meterbridge_records_restamped_total"),
    "MeterbridgePartitionHalted": Case(
        {HALTED % "offset_gap": since(1, 8)},
        {HALTED % "offset_gap": since(0, 5, before=1)},
    ),
    "MeterbridgeLedgerImbalance": Case(
        {HALTED % "ledger_imbalance": since(1, 2)}, {HALTED % "ledger_imbalance": stays(0)}
    ),
    "MeterbridgeLedgersNotOpen": Case(
        # Calls wait and the canary's are not billed, which this alarm explains.
        {
            "meterbridge_ledgers_open": since(4, 13, before=6),
            waits("oldest_seconds", "raw"): since(700, 8),
            CANARY_FAILING % "not_billed": since(1, 8),
        },
        {"meterbridge_ledgers_open": since(4, 5, before=6)},
    ),
    "MeterbridgeMeterBehind": Case(
        {waits("oldest_seconds", "raw"): since(700, 8)},
        {waits("oldest_seconds", "raw"): stays(500)},
    ),
    "MeterbridgeUsageWithoutPrice": Case({UNPRICED: counts(20, 2)}, {UNPRICED: grows(20)}, step="30m"),
    "MeterbridgeImplausibleCost": Case(
        {IMPLAUSIBLE: counts(), REJECTED: since(4, 5, before=3)},
        {IMPLAUSIBLE: stays(5)},
    ),
    "MeterbridgeTwoCallbacks": _counter('meterbridge_two_routes_total{route="lago", other="litellm"}'),
    "MeterbridgeBilledTwice": _counter('meterbridge_doubled_calls_total{kind="bridge"}'),
    "MeterbridgeLateCallsWait": _counter(
        'meterbridge_late_calls_total{outcome="waiting"}',
        {'meterbridge_late_calls_total{outcome="requeued"}': counts()},
    ),
    "MeterbridgeUnreadableRecords": Case(
        {
            'meterbridge_unreadable_records_total{table="customers"}': counts(),
            'meterbridge_projection_skipped_total{reason="unreadable"}': counts(),
        },
        {'meterbridge_unreadable_records_total{table="customers"}': stays(7)},
    ),
    "MeterbridgeTablesStale": Case(
        {'meterbridge_table_staleness_seconds{table="orgs"}': since(90, 8)},
        {'meterbridge_table_staleness_seconds{table="orgs"}': since(90, 3)},
    ),
    "MeterbridgeUnknownCallType": _counter("meterbridge_unknown_call_type_calls_total"),
    # Ten minutes a step: ten hours.
    "MeterbridgeHeldMoneyGrows": Case(
        {'meterbridge_held_cost_usd{reason="no_mapping"}': since(70, 6, before=50)},
        {'meterbridge_held_cost_usd{reason="no_mapping"}': f"1000+0x{SAMPLES - 39} 0+0x1 1050+0x36"},
        step="10m",
    ),
    "MeterbridgeHeldTooLong": Case(
        {"meterbridge_held_oldest_seconds": stays(90_000)}, {"meterbridge_held_oldest_seconds": stays(80_000)}
    ),
    "MeterbridgeHeldCustomersJump": Case(
        {"meterbridge_newly_held_customers_total": counts(200)}, {"meterbridge_newly_held_customers_total": counts(50)}
    ),
    "MeterbridgeHeldOverBound": Case(
        {'meterbridge_held_over_bound{partition="2"}': since(1, 8)},
        {'meterbridge_held_over_bound{partition="2"}': since(1, 3)},
    ),
    "MeterbridgeUsageAfterEnd": Case(
        {"meterbridge_after_end_events": since(3, 9)}, {"meterbridge_after_end_events": since(3, 4)}, step="10m"
    ),
    "MeterbridgeNoCustomers": Case(
        {"active_customers_total": since(0, 4, before=100)}, {"active_customers_total": stays(0)}, step="10m"
    ),
    "MeterbridgeLagoDown": Case(
        # The canary's calls are not billed either, which this alarm explains.
        {
            "meterbridge_lago_breaker_state": f"0+0x{SAMPLES - 8} 2+0x4 1 2+0x1",
            CANARY_FAILING % "not_billed": since(1, 7),
        },
        {"meterbridge_lago_breaker_state": since(2, 3)},
    ),
    "MeterbridgeLagoKeyRefused": Case(
        {REFUSED: f"0+0x{SAMPLES - 10} 1+1x9", "meterbridge_lago_breaker_state": since(2, 9)},
        {REFUSED: counts(steps=2)},
    ),
    "MeterbridgeLagoOrganizationDown": Case(
        {'meterbridge_lago_organization_breaker_state{organization="eu"}': since(2, 7)},
        {'meterbridge_lago_organization_breaker_state{organization="eu"}': since(2, 3)},
    ),
    "MeterbridgeLagoOrganizationKeyRefused": Case(
        {
            'meterbridge_lago_organization_requests_total{organization="eu",status="401"}': f"0+0x{SAMPLES - 10} 1+1x9",
            'meterbridge_lago_organization_breaker_state{organization="eu"}': since(2, 9),
        },
        {'meterbridge_lago_organization_requests_total{organization="eu",status="401"}': counts(steps=2)},
    ),
    "MeterbridgeDeadLetters": _counter(
        'meterbridge_event_transitions_total{status="failed"}',
        {'meterbridge_event_transitions_total{status="completed"}': grows(5)},
    ),
    "MeterbridgeDeliveryBehind": Case(
        {waits("oldest_seconds", "events"): stays(1000)},
        {waits("oldest_seconds", "events"): stays(800), waits("oldest_seconds", "retry"): stays(3000)},
    ),
    "MeterbridgeRecordsHalfwayToDeletion": Case(
        {waits("retention_ratio", "events"): stays(0.6), waits("oldest_seconds", "events"): stays(18 * DAY_S)},
        {waits("retention_ratio", "events"): stays(0.4)},
    ),
    "MeterbridgeLagoTooOld": Case({"meterbridge_lago_too_old": stays(1)}, {"meterbridge_lago_too_old": since(1, 8)}),
    "MeterbridgeUsageBilledLate": Case(
        {'meterbridge_shifted_events_total{when="seal"}': grows(100)},
        {'meterbridge_shifted_events_total{when="seal"}': counts(1000, 10)},
        step="10m",
    ),
    "MeterbridgeCreditsImbalance": Case(
        {"meterbridge_credits_imbalance_usd": since(-0.01, 2)}, {"meterbridge_credits_imbalance_usd": stays(0)}
    ),
    "MeterbridgeOverdraftGrows": Case(
        {"meterbridge_credits_overdraft_usd": since(20, 4, before=7)},
        {"meterbridge_credits_overdraft_usd": f"500+0x{SAMPLES - 10} 0 500+0x8"},
        step="10m",
    ),
    "MeterbridgeCallsUndebited": _counter('meterbridge_credits_undebited_calls_total{reason="client_chose_user"}'),
    "MeterbridgePaymentWithoutCredits": _counter(
        'meterbridge_stripe_events_total{outcome="wrong_amount"}',
        {'meterbridge_stripe_events_total{outcome="applied"}': counts()},
    ),
    "MeterbridgeStripeUnsigned": Case(
        {'meterbridge_stripe_events_total{outcome="bad_signature"}': counts(steps=10)},
        {'meterbridge_stripe_events_total{outcome="bad_signature"}': counts(steps=2)},
    ),
    "MeterbridgeReservationsGrow": Case(
        {"meterbridge_credit_reservations_open": since(5000, 10, before=100)},
        {"meterbridge_credit_reservations_open": stays(5000)},
        step="10m",
    ),
    "MeterbridgeCreditUpkeepFails": _counter("meterbridge_credit_upkeep_failures_total"),
    "MeterbridgeProviderKeysUnreadable": Case(
        {'meterbridge_provider_keys{state="unknown_secret"}': since(2, 8)},
        {'meterbridge_provider_keys{state="due"}': since(2, 8)},
    ),
    "MeterbridgeNothingScraped": Case(
        {series: disappeared(30) for series in HEALTHY if series.startswith("meterbridge")},
        {series: disappeared(3) for series in HEALTHY if series.startswith("meterbridge_role")},
    ),
    "MeterbridgeRoleMissing": Case(
        # The customers that the api counts are zero at all others.
        {
            **{ROLE % ("api", role): disappeared(4, int(role == "api")) for role in _ROLES},
            "active_customers_total": since(0, 4, before=100),
        },
        {ROLE % ("project", role): never() for role in _ROLES},
        step="10m",
    ),
    "MeterbridgeTargetDown": Case(
        {'up{job="meterbridge", instance="meter:9090"}': since(0, 18, before=1)},
        {'up{job="something-else", instance="meter:9090"}': stays(0)},
    ),
    "MeterbridgeCanaryNotBilled": Case(
        # The error may change meanwhile: first calls were not billed, now Lago does not answer.
        {CANARY_FAILING % "not_billed": since(0, 6, before=1), CANARY_FAILING % "not_seen": since(1, 6)},
        {CANARY_FAILING % "not_billed": since(1, 8), CANARY_FAILING % "wrong_amount": stays(1)},
    ),
    "MeterbridgeCanaryWrong": _counter(CANARY_WRONG, {'meterbridge_canary_calls_total{result="billed"}': grows(1)}),
    "MeterbridgeCanaryGone": Case(
        {ROLE % ("canary", role): disappeared(10, int(role == "canary")) for role in _ROLES},
        {ROLE % ("canary", role): never() for role in _ROLES},
    ),
    "MeterbridgeCertificateEndsSoon": Case({CA: stays(20 * DAY_S)}, {CA: stays(31 * DAY_S)}),
    "MeterbridgeCertificateEnds": Case({CA: stays(-5)}, {CA: stays(31 * DAY_S)}),
    "MeterbridgeProjectorBehind": Case({LAG: stays(700)}, {LAG: stays(500)}),
    "MeterbridgeProjectorHalfwayToDeletion": Case({LAG: stays(8 * DAY_S)}, {LAG: stays(100)}),
    "MeterbridgeRowsLeftOut": _counter(
        'meterbridge_projection_skipped_total{reason="row_refused"}',
        {'meterbridge_projection_skipped_total{reason="repeated"}': grows(1)},
    ),
    "MeterbridgeBackgroundTaskFails": Case(
        {'meterbridge_background_task_interruptions_total{task="watch_queues"}': grows(2)},
        {'meterbridge_background_task_interruptions_total{task="watch_queues"}': counts()},
    ),
    "MeterbridgeAnalyticsFail": Case(
        {"meterbridge_usage_days_failed": since(1, 9)}, {"meterbridge_usage_days_failed": since(1, 4)}, step="10m"
    ),
    "MeterbridgeWebhookEndpointDisabled": Case(
        {"meterbridge_outgoing_webhook_endpoints_disabled": since(1, 2)},
        {
            "meterbridge_outgoing_webhook_endpoints_disabled": stays(0),
            "meterbridge_outgoing_webhooks_waiting": stays(9000),
        },
    ),
    "MeterbridgeApiShortOfPostgres": Case(
        {'meterbridge_api_postgres_refused_total{pool="credits"}': counts(steps=10)},
        {'meterbridge_api_postgres_refused_total{pool="credits"}': counts(steps=3)},
    ),
    "MeterbridgeAuditLogChanged": Case(
        {"meterbridge_audit_chain_broken": since(1, 2)}, {"meterbridge_audit_chain_broken": stays(0)}
    ),
    "MeterbridgeTwoVersions": Case(
        {'meterbridge_build_info{version="2"}': stays(1)},
        {'meterbridge_build_info{version="2"}': appears(10)},
        step="10m",
    ),
}
