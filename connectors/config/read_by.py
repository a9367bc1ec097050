"""Lists which processes and commands use each setting, for a column of docs/configuration.md.

`tests/unit/config/test_read_by.py` compares it with the code that reads the settings. Some settings reach all roles of
a worker as one value, such as the policy of the meter. They are listed here only for the roles that use them; the test
only checks that one of the workers reads them.
"""

from itertools import chain
from typing import Final

INGRESS, API, METER, SINK, RETRY, PROJECT, CANARY = "ingress", "api", "meter", "sink", "retry", "project", "canary"
#: The roles of `meterbridge serve`, `worker` and `canary`.
ROLES: Final = (INGRESS, API, METER, SINK, RETRY, PROJECT, CANARY)
#: Groups of commands; the name of a command means this command alone.
COMMANDS: Final = "commands"

_WORKERS: Final = (METER, SINK, RETRY, PROJECT)
_POSTING: Final = (SINK, RETRY)
_SERVED: Final = (INGRESS, API)
_EVERY: Final = (*ROLES, COMMANDS)
_LISTENING: Final = ROLES

_READERS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        _EVERY,
        ("kafka_bootstrap_servers kafka_security_protocol kafka_sasl_mechanism kafka_sasl_username kafka_sasl_password kafka_ssl_cafile "
        "kafka_ssl_certfile kafka_ssl_keyfile kafka_ssl_key_password topic_prefix log_level log_format"),
    ),
    ((*_SERVED, *_WORKERS, COMMANDS), "kafka_partitions kafka_replication_factor lago_organizations"),
    ((API, *_WORKERS, CANARY, COMMANDS), "deployment_name lago_event_code"),
    (_EVERY, "lago_api_url lago_api_key lago_timeout"),
    (_WORKERS, "pod_name worker_processes"),
    ((*_POSTING, CANARY), "lago_clickhouse_dedup"),
    (("lago setup",), "lago_webhook_url"),
    ((API,), "lago_webhook_secret auto_subscribe litellm_master_key api_rate_limit authorize_rate_limit api_postgres_connections"),
    ((API,), "oidc_issuer oidc_audience oidc_jwks_url oidc_scopes_claim oidc_orgs_claim oidc_grant_days oidc_user_claim"),
    ((API,), "credits_allowed_overdraft stripe_api_key stripe_webhook_secret stripe_api_url provider_keys_rotation_days"),
    ((API, "provider-keys rotate-secret"), "provider_keys_secret"),
    ((API, CANARY), "org_id_prefixes lago_organization_names"),
    ((API,), "subscription_id_template"),
    ((METER,), "map_by_identity window_group_by max_usd_per_call max_usd_per_token"),
    ((METER, PROJECT, COMMANDS), "cache_hit_policy byok_policy client_oauth_policy silent_experiment_policy"),
    (("doctor",), "litellm_api_url"),
    (("backfill", "reconcile"), "litellm_database_url"),
    ((INGRESS, CANARY), "webhook_secret webhook_token"),
    ((INGRESS,), "webhook_tolerance webhook_timestamp_required webhook_allowed_ips webhook_rate_limit allow_unauthenticated"),
    ((INGRESS,), "max_body_bytes spool_path spool_max_bytes"),
    ((INGRESS, "backfill"), "kept_tag_prefixes kept_metadata"),
    ((INGRESS, API, PROJECT, CANARY, COMMANDS), "customer_id_fields"),
    (_SERVED, "port api_port trusted_proxies webhook_timeout redis_url"),
    (_LISTENING, "host metrics_port"),
    ((METER, CANARY, "migrate-orgs", "recover"), "window_seconds"),
    ((METER, CANARY, "migrate-orgs"), "grace_seconds"),
    ((API, METER, "db", "migrate-orgs"), "dedupe_retention_hours"),
    ((API, METER, *_POSTING, "rates"), "mapping_delay_seconds"),
    ((API, METER), "held_in_memory"),
    ((METER, *_POSTING, PROJECT, "lago rebill"), "out_of_period_policy"),
    ((API, METER, PROJECT, COMMANDS), "cost_decimals"),
    ((*_POSTING, "migrate-orgs"), "max_retries retry_delay"),
    (_POSTING, "batch_size worker_concurrency"),
    ((*_SERVED, PROJECT, COMMANDS), "database_url postgres_host postgres_port postgres_user postgres_password postgres_db"),
    ((CANARY,), "canary_url canary_interval canary_cost_usd canary_billed_usd canary_billed_within"),
    ((PROJECT, "webhooks test"), "outgoing_webhook_urls outgoing_webhook_secrets outgoing_webhook_allow_http"),
    ((PROJECT,), "outgoing_webhook_events outgoing_webhook_held_usd outgoing_webhook_low_balance_usd credits_user_kinds"),
    ((INGRESS, METER, *_POSTING), "tracing_enabled otel_service_name otel_traces_sampler otel_traces_sampler_arg"),
)  # fmt: skip

#: The readers of each setting, by the name of its field.
READ_BY: Final = dict(chain.from_iterable(((name, by) for name in names.split()) for by, names in _READERS))


def readers_shown(name: str) -> str:
    """Return the readers of a setting as text of the page. Args: name: of the field."""
    by = READ_BY[name]
    if by == _EVERY:
        return "all"
    return ", ".join(one if one in ROLES or one == COMMANDS else f"`{one}`" for one in by)
