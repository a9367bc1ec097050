"""All environment variables, read once at the start. No other module reads the environment.

`load_settings()` returns a frozen `Settings`, or raises one ConfigurationError that names every malformed variable. An empty
variable counts as not set. No message contains a value, because a malformed value may be a secret in the wrong variable.
docs/configuration.md is made from this module (connectors/config/configuration_page.py).
"""

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import quote

from pydantic import (
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from connectors.config.canary_settings import CanarySettings
from connectors.config.credit_settings import CreditSettings
from connectors.config.kafka_settings import KafkaSettings
from connectors.config.misspelt_names import unknown_names
from connectors.config.organization_settings import OrganizationSettings
from connectors.config.renamed_settings import check_renamed
from connectors.config.secret_files import with_files
from connectors.config.tracing import TracingSettings
from connectors.config.types import (
    BillOrSkip,
    Dollars,
    HttpUrl,
    Issuer,
    Listed,
    Lower,
    MaybeSeconds,
    Name,
    Networks,
    PodName,
    Port,
    PostgresUrl,
    Prefix,
    Seconds,
    Secrets,
    SubscriptionIdTemplate,
    Upper,
    WindowSeconds,
    out_of,
)
from connectors.config.webhook_settings import WebhookSettings
from connectors.config.worker_settings import WorkerSettings
from schemas.errors import ConfigurationError
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.usage import GROUP_FIELDS
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS


class Settings(
    KafkaSettings,
    CreditSettings,
    OrganizationSettings,
    CanarySettings,
    TracingSettings,
    WebhookSettings,
    WorkerSettings,
):
    """The operator's settings. A field's variable is its name in capitals; durations are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    topic_prefix: Prefix = Field(
        "", description="Prefix of every topic, consumer group and transactional id, e.g. `billing.`."
    )
    deployment_name: Name = Field(
        "meterbridge",
        description="First part of every Lago transaction id. Two deployments that bill into one Lago need two names.",
    )
    pod_name: PodName | None = Field(
        None,
        description="A worker's name that stays the same after a restart, e.g. a StatefulSet's pod name by the downward API. A worker "
        "that is back within 15 s keeps its partitions, which wait so long, and no other worker is disturbed. Two running "
        "workers must not share it. Unset = partitions move at once when a worker stops.",
    )

    lago_api_url: HttpUrl = Field("http://localhost:3000", description="Lago's API, without `/api/v1`.")
    lago_api_key: SecretStr | None = Field(None, description="Lago's API key.")
    lago_timeout: Seconds = Field(30, description="Time limit of one request to Lago, in seconds.")
    lago_event_code: str = Field(
        "ai_usage", min_length=1, max_length=255, description="Code of the billable metric for usage."
    )
    lago_clickhouse_dedup: bool = Field(
        False,
        description="Set it if Lago stores events in ClickHouse *and* its deduplication is on: then an event in doubt is sent again without "
        "looking it up.",
    )
    lago_webhook_url: HttpUrl | None = Field(
        None, description="The URL to which Lago sends its webhooks, for `meterbridge lago setup`; unset = none."
    )
    lago_webhook_secret: Secrets = Field(
        (),
        description="The HMAC key that Lago shows under Developers, Webhooks; several, separated by commas, while one is "
        "rotated. Unset = its webhooks are refused.",
    )
    org_id_prefixes: Annotated[tuple[str, ...], Field(min_length=1), Listed] = Field(
        ("org_",), description="Prefixes of the ids of orgs, separated by commas; other customers of Lago are users."
    )
    subscription_id_template: SubscriptionIdTemplate = Field(
        "{org_id}_{plan_code}_{timestamp}",
        description="Ids of new subscriptions, made once for an org from `{org_id}`, `{plan_code}` and `{timestamp}`; "
        "`sub_{org_id}` is the same in every process.",
    )
    auto_subscribe: bool = Field(
        False,
        description="Subscribe an org to the `billing_plan` of its mapping as soon as a customer is mapped to it, if it never had a "
        "subscription. Without it, its usage is held until it has one.",
    )
    map_by_identity: bool = Field(
        False,
        description="Bill a LiteLLM customer without a mapping to the Lago customer of the same id (docs/mapping.md).",
    )
    litellm_api_url: HttpUrl = Field("http://localhost:4000", description="LiteLLM's proxy.")
    litellm_database_url: PostgresUrl | None = Field(
        None, description="LiteLLM's own Postgres as a URL, for `meterbridge backfill --source litellm-db`."
    )
    litellm_master_key: SecretStr | None = Field(
        None, description="LiteLLM's master key; it is also the bearer token of the management endpoints."
    )

    webhook_secret: Secrets = Field(
        (), description="HMAC-SHA256 secrets of signed webhooks; several, separated by commas, while one is rotated."
    )
    webhook_token: Secrets = Field(
        (), description="Bearer tokens of senders that cannot sign; several, separated by commas."
    )
    webhook_tolerance: Seconds = Field(
        300, description="How many seconds the time in a signature may differ from this server's clock."
    )
    webhook_timestamp_required: bool = Field(
        False,
        description="Refuse signatures of the body alone (`sha256=...`). They never expire, so a recorded request can be "
        "repeated after `DEDUPE_RETENTION_HOURS` and is billed again. `1` in deploy/.env.example.",
    )
    webhook_allowed_ips: Networks = Field(
        (), description="Addresses and networks that may send usage, separated by commas; empty = all."
    )
    trusted_proxies: Networks = Field(
        (), description="Addresses and networks of our own proxies; only their `X-Forwarded-For` is trusted."
    )
    webhook_rate_limit: float = Field(
        2000,
        ge=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Requests per second of each token or signing secret, with bursts of one second; above it the answer is "
        "503 ([why 2000](ingress.md#how-much)). 0 = no limit.",
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Accept usage from anybody if no secret and no token is set: for trying out, or "
        "behind a proxy that authenticates.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; `0.0.0.0` in a container.")
    port: Port = Field(8080, description="Port of the webhooks; 0 = any free one.")
    api_port: Port | None = Field(
        None, description="Port of the management API; unset = `PORT`, or 3002 if the process serves only the API."
    )
    api_rate_limit: float = Field(
        500,
        ge=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Requests per second of each key or user to the management API, with bursts of one second; above it the "
        "answer is 429. 0 = no limit.",
    )
    oidc_issuer: Issuer | None = Field(
        None,
        description="`iss` of users' tokens, byte for byte; unset = users have no access (docs/access.md).",
    )
    oidc_audience: Annotated[tuple[str, ...], Listed] = Field(
        (), description="`aud` of users' tokens, one of several separated by commas; needed by `OIDC_ISSUER`."
    )
    oidc_jwks_url: HttpUrl | None = Field(
        None, description="URL of the issuer's keys; unset = the one in `<issuer>/.well-known/openid-configuration`."
    )
    oidc_scopes_claim: str = Field(
        "scope", min_length=1, description="Claim with a user's scopes; `a.b` is the member `b` of the claim `a`."
    )
    oidc_orgs_claim: str = Field("orgs", min_length=1, description="Claim with the ids of a user's orgs.")
    oidc_grant_days: int = Field(
        30, ge=1, le=3650, description="The longest lifetime of an API key that a user makes, in days."
    )
    metrics_port: Port = Field(9090, description="Port of the Prometheus metrics.")
    webhook_timeout: Seconds = Field(30, description="Time limit of one request to the ingress, in seconds.")
    max_body_bytes: Annotated[ByteSize, Field(ge=1024)] = Field(
        ByteSize(64 << 20),
        description="Largest request body, in bytes or as `64MiB`; a larger one is answered with 413.",
    )
    spool_path: Path | None = Field(
        None,
        description="File on a persistent volume that stores calls while Kafka does not answer; unset = 503 meanwhile.",
    )
    spool_max_bytes: Annotated[ByteSize, Field(ge=1 << 20)] = Field(
        ByteSize(1 << 30),
        description="Largest size of that file, in bytes or as `1GiB`; when it is full the answer is 503.",
    )

    window_seconds: WindowSeconds = Field(
        60, description="Length of a window in seconds; must divide a day. 0 = one Lago event per call."
    )
    grace_seconds: MaybeSeconds = Field(5, description="How many seconds after its end a window waits for late calls.")
    window_group_by: Annotated[tuple[str, ...], Listed, out_of(GROUP_FIELDS)] = Field(
        (),
        description=f"Fields by which windows are split further, separated by commas: `{'`, `'.join(GROUP_FIELDS)}`.",
    )
    dedupe_retention_hours: int = Field(
        24,
        ge=2,
        le=240,
        description="For how many hours a duplicate call is recognised; older calls are never billed directly.",
    )
    mapping_delay_seconds: MaybeSeconds = Field(
        5, description="A changed mapping applies this many seconds later, so that every worker knows it in time."
    )
    held_in_memory: int = Field(
        10_000,
        ge=100,
        description="Held windows of a partition that stay in memory, 1.1 kB each; more go to disk, and the metric "
        "`meterbridge_held_over_bound` is 1.",
    )
    out_of_period_policy: Annotated[OutOfPeriodPolicy, Lower] = Field(
        OutOfPeriodPolicy.SHIFT,
        description="Usage before its subscription's start, or in a billing period that is invoiced already: `shift` it to the "
        "first moment that is billed, or `hold` it.",
    )
    cost_decimals: int = Field(
        12, ge=6, le=13, description="Decimal places of a dollar to which a call's cost is rounded."
    )
    cache_hit_policy: BillOrSkip = Field("skip", description="Answers from LiteLLM's cache: `bill` or `skip`.")
    byok_policy: BillOrSkip = Field("bill", description="Calls paid with the caller's own key: `bill` or `skip`.")
    client_oauth_policy: BillOrSkip = Field(
        "skip", description="Calls on the caller's own subscription: `bill` or `skip`."
    )
    silent_experiment_policy: BillOrSkip = Field("skip", description="LiteLLM's silent experiments: `bill` or `skip`.")
    max_usd_per_call: Dollars = Field(
        Decimal(1000),
        description="A call that costs more dollars is kept aside until an operator accepts it ([ADR 0016](adr/0016-what-a-call-is.md)).",
    )
    max_usd_per_token: Dollars = Field(
        Decimal(10),
        description="The same for each of its tokens; the most expensive model costs 0.0006 (`o1-pro`, LiteLLM 1.110.2).",
    )
    customer_id_fields: Annotated[tuple[str, ...], Field(min_length=1), Listed, out_of(CUSTOMER_ID_FIELDS)] = Field(
        CUSTOMER_ID_FIELDS,
        description="Fields in which a call's customer id is searched; the first one present is used.",
    )
    kept_tag_prefixes: Annotated[tuple[str, ...], Listed] = Field(
        (), description="Prefixes of request tags that are stored for `enriched`, separated by commas; empty = none."
    )
    kept_metadata: Annotated[tuple[str, ...], Listed] = Field(
        (),
        description="Names in `spend_logs_metadata` and in the metadata of key and team that are stored; empty = none.",
    )

    max_retries: int = Field(
        3,
        ge=0,
        le=100,
        description="Attempts in the retry topic, each with up to three requests, before an event becomes a dead letter.",
    )
    retry_delay: float = Field(
        60,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds before the first retry; each further one waits twice as long, at most an hour.",
    )
    batch_size: int = Field(
        100, ge=1, le=100, description="Events in one request to Lago, which refuses more than 100."
    )
    database_url: PostgresUrl | None = Field(None, description="Postgres as a URL; it replaces `POSTGRES_*`.")
    postgres_host: str | None = Field(
        None, description="Postgres' host; if it and `DATABASE_URL` are unset, there is no Postgres."
    )
    postgres_port: Annotated[int, Field(ge=1, le=65_535)] = Field(5432, description="Postgres' port.")
    postgres_user: str = Field("meterbridge", description="Postgres' user.")
    postgres_password: SecretStr | None = Field(None, description="Postgres' password.")
    postgres_db: str = Field("meterbridge", description="Postgres' database.")
    redis_url: SecretStr | None = Field(None, description="LiteLLM's Redis; only its health is checked.")

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Upper] = Field(
        "INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`."
    )
    log_format: Annotated[Literal["json", "console"], Lower] = Field(
        "json", description="`json`: one object a line; `console`: for people."
    )

    #: Variables that look like a setting and are none; the process warns about them.
    unknown: tuple[str, ...] = Field((), exclude=True)

    @field_validator("oidc_audience")
    @classmethod
    def _tokens_are_for_us(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value and info.data.get("oidc_issuer"):
            raise ValueError("is needed by OIDC_ISSUER: tokens for others would be taken")
        return value

    @property
    def postgres_url(self) -> SecretStr | None:
        """The URL of Postgres for asyncpg; None = the deployment has no Postgres."""
        if self.database_url or not self.postgres_host:
            return self.database_url
        password = f":{quote(self.postgres_password.get_secret_value(), safe='')}" if self.postgres_password else ""
        account = quote(self.postgres_user, safe="") + password
        return SecretStr(f"postgresql://{account}@{self.postgres_host}:{self.postgres_port}/{quote(self.postgres_db)}")

    def meter_policy(self) -> MeterPolicy:
        """Return the settings that decide what is billed, in the form of the meter."""
        return MeterPolicy(
            deployment=self.deployment_name,
            window_us=self.window_seconds * SECOND_US,
            grace_us=round(self.grace_seconds * SECOND_US),
            dedupe_retention_us=self.dedupe_retention_hours * HOUR_US,
            group_by=self.window_group_by,
            cost_decimals=self.cost_decimals,
            bill_cache_hits=self.cache_hit_policy == "bill",
            bill_byok=self.byok_policy == "bill",
            bill_own_subscriptions=self.client_oauth_policy == "bill",
            bill_silent_experiments=self.silent_experiment_policy == "bill",
            max_usd_per_call=self.max_usd_per_call,
            max_usd_per_token=self.max_usd_per_token,
            out_of_period_policy=self.out_of_period_policy,
            event_code=self.lago_event_code,
            organizations=tuple(one.id for one in self.open_organizations),
        )


#: The field of each variable; those of parts of their own last.
_ORDER: Final = (Settings, OrganizationSettings, CanarySettings, CreditSettings, WebhookSettings, TracingSettings)
VARIABLES: Final = {
    name.upper(): name
    for name in sorted(Settings.model_fields, key=lambda name: [name in part.model_fields for part in _ORDER][::-1])
    if name != "unknown"
}


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ` (default: this process's environment) and from the files that it names.

    Raises:
        ConfigurationError: `reason` is the name of the malformed variable; several are joined by commas. Or it is the old name
            of a setting that was renamed.
    """
    environ = os.environ if environ is None else environ
    check_renamed(environ)
    environ = with_files(environ, VARIABLES)
    given = {name: environ[variable].strip() for variable, name in VARIABLES.items() if environ.get(variable)}
    unknown = unknown_names(environ, VARIABLES)
    try:
        return Settings.model_validate({**{name: text for name, text in given.items() if text}, "unknown": unknown})
    except ValidationError as invalid:
        complaints: dict[str, str] = {}
        for error in invalid.errors(include_input=False, include_url=False, include_context=False):
            variable = str(error["loc"][0]).upper()
            complaints.setdefault(variable, error["msg"].removeprefix("Value error, ").removeprefix("Input "))
        sentences = "; ".join(f"{variable} {message}" for variable, message in complaints.items())
        raise ConfigurationError(", ".join(complaints), sentences) from None


def own_settings(beginnings: tuple[str, ...]) -> Settings:
    """Return `load_settings` with only the variables that begin so: in another program's process, other variables may
    be that program's.
    """
    return load_settings({name: value for name, value in os.environ.items() if name.startswith(beginnings)})
