"""Settings are read from the environment once: a malformed value is reported with its variable's name and never
repeated.
"""

from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from traceback import format_exception

import pytest
from pydantic import SecretStr, ValidationError

from connectors.config.settings import VARIABLES, Settings, load_settings
from schemas.errors import ConfigurationError
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from tests.support.authority import Authority

CANARY = "sk-canary-in-the-wrong-place"


def test_an_empty_environment_is_valid() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert (settings.kafka_bootstrap_servers, settings.kafka_partitions) == ("localhost:9092", 12)
    assert settings.host == "127.0.0.1"
    assert settings.postgres_url is None
    assert settings.meter_policy() == MeterPolicy()


def test_an_empty_variable_counts_as_unset() -> None:
    """Compose files and charts pass what was never filled in as an empty string."""
    blank = dict.fromkeys(VARIABLES, "")
    assert load_settings(blank) == Settings()
    assert load_settings(dict.fromkeys(VARIABLES, " ")) == Settings()


def test_every_variable_of_the_environment_is_read(tmp_path: Path) -> None:
    client = Authority(tmp_path).client("meter", "hushed-secret")
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": "a:9092, b:9093",
        "KAFKA_PARTITIONS": "3",
        "KAFKA_REPLICATION_FACTOR": "3",
        "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
        "KAFKA_SASL_MECHANISM": "scram-sha-512",
        "KAFKA_SASL_USERNAME": "meter",
        "KAFKA_SASL_PASSWORD": "hushed-secret",
        "KAFKA_SSL_CAFILE": __file__,
        "KAFKA_SSL_CERTFILE": str(client.certificate),
        "KAFKA_SSL_KEYFILE": str(client.key),
        "KAFKA_SSL_KEY_PASSWORD": "hushed-secret",
        "TOPIC_PREFIX": "acme.",
        "DEPLOYMENT_NAME": "eu-1",
        "POD_NAME": "meter-0",
        "LAGO_API_URL": "https://lago.example/",
        "LAGO_API_KEY": "hushed-secret",
        "LAGO_TIMEOUT": "2.5",
        "LAGO_EVENT_CODE": "tokens",
        "LAGO_CLICKHOUSE_DEDUP": "1",
        "LAGO_ORGANIZATIONS": '[{"id": "eu", "url": "https://eu.example", "key": "hushed-secret"}]',
        "LAGO_ORGANIZATION_NAMES": "ours, mine",
        "LAGO_WEBHOOK_URL": "https://meter.example/webhooks/lago",
        "ORG_ID_PREFIXES": "team-, acct-",
        "SUBSCRIPTION_ID_TEMPLATE": "sub_{org_id}",
        "AUTO_SUBSCRIBE": "1",
        "MAP_BY_IDENTITY": "1",
        "LITELLM_API_URL": "http://litellm:4000",
        "LITELLM_DATABASE_URL": "postgresql://litellm",
        "LITELLM_MASTER_KEY": "hushed-secret",
        "LAGO_WEBHOOK_SECRET": "new,old",
        "WEBHOOK_SECRET": "new, old",
        "WEBHOOK_TOKEN": "only",
        "WEBHOOK_TOLERANCE": "60",
        "WEBHOOK_TIMESTAMP_REQUIRED": "1",
        "WEBHOOK_ALLOWED_IPS": "10.0.0.0/8, 2001:db8::1",
        "TRUSTED_PROXIES": "127.0.0.1",
        "WEBHOOK_RATE_LIMIT": "0.5",
        "ALLOW_UNAUTHENTICATED": "true",
        "HOST": "0.0.0.0",
        "PORT": "81",
        "API_PORT": "82",
        "METRICS_PORT": "83",
        "API_RATE_LIMIT": "5",
        "AUTHORIZE_RATE_LIMIT": "7",
        "OIDC_ISSUER": "https://id.example/",
        "OIDC_AUDIENCE": "meterbridge, billing",
        "OIDC_JWKS_URL": "https://id.example/keys",
        "OIDC_SCOPES_CLAIM": "permissions",
        "OIDC_ORGS_CLAIM": "https://example/orgs",
        "OIDC_USER_CLAIM": "litellm_user_id",
        "OIDC_GRANT_DAYS": "7",
        "PROVIDER_KEYS_SECRET": f"{'A' * 43}=, {'B' * 43}=",
        "PROVIDER_KEYS_ROTATION_DAYS": "30",
        "WEBHOOK_TIMEOUT": "10",
        "MAX_BODY_BYTES": "1MiB",
        "SPOOL_PATH": "/data/spool.db",
        "SPOOL_MAX_BYTES": "64MiB",
        "WINDOW_SECONDS": "0",
        "GRACE_SECONDS": "0.5",
        "WINDOW_GROUP_BY": "team_id,key_alias",
        "DEDUPE_RETENTION_HOURS": "48",
        "MAPPING_DELAY_SECONDS": "1",
        "HELD_IN_MEMORY": "100",
        "OUT_OF_PERIOD_POLICY": "HOLD",
        "COST_DECIMALS": "10",
        "CACHE_HIT_POLICY": "bill",
        "BYOK_POLICY": "skip",
        "CLIENT_OAUTH_POLICY": "bill",
        "SILENT_EXPERIMENT_POLICY": "bill",
        "MAX_USD_PER_CALL": "50.5",
        "MAX_USD_PER_TOKEN": "0.01",
        "CUSTOMER_ID_FIELDS": "team,key",
        "KEPT_TAG_PREFIXES": "team:",
        "KEPT_METADATA": "project, env",
        "MAX_RETRIES": "5",
        "RETRY_DELAY": "1",
        "BATCH_SIZE": "50",
        "WORKER_CONCURRENCY": "8",
        "WORKER_PROCESSES": "one",
        "DATABASE_URL": "postgresql://db/x",
        "POSTGRES_HOST": "db",
        "POSTGRES_PORT": "5433",
        "POSTGRES_USER": "meter",
        "POSTGRES_PASSWORD": "hushed-secret",
        "POSTGRES_DB": "usage",
        "REDIS_URL": "redis://cache",
        "CREDITS_ALLOWED_OVERDRAFT": "2.5",
        "CREDITS_USER_KINDS": "user,customer",
        "API_POSTGRES_CONNECTIONS": "20",
        "CANARY_URL": "http://ingress:8080",
        "CANARY_INTERVAL": "120",
        "CANARY_COST_USD": "0.002",
        "CANARY_BILLED_USD": "0.003",
        "CANARY_BILLED_WITHIN": "60",
        "STRIPE_API_KEY": "hushed-secret",
        "STRIPE_WEBHOOK_SECRET": "new, old",
        "STRIPE_API_URL": "http://127.0.0.1:12111/",
        "OUTGOING_WEBHOOK_ALLOW_HTTP": "true",
        "OUTGOING_WEBHOOK_SECRETS": f"whsec_{'A' * 32}, whsec_{'B' * 32}",
        "OUTGOING_WEBHOOK_URLS": "http://hooks.internal/a?token=1, https://hooks.example/b",
        "OUTGOING_WEBHOOK_EVENTS": "usage.held,credits.low",
        "OUTGOING_WEBHOOK_HELD_USD": "50",
        "OUTGOING_WEBHOOK_LOW_BALANCE_USD": "2.5",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "console",
        "TRACING_ENABLED": "true",
        "OTEL_SERVICE_NAME": "billing",
        "OTEL_TRACES_SAMPLER": "Always_On",
        "OTEL_TRACES_SAMPLER_ARG": "0.5",
    }
    assert given.keys() == VARIABLES.keys()
    settings, default = load_settings(given), Settings()
    assert not [name for name in VARIABLES.values() if getattr(settings, name) == getattr(default, name)]
    assert settings.kafka_bootstrap_servers == "a:9092,b:9093"
    assert settings.lago_api_url == "https://lago.example"
    assert [secret.get_secret_value() for secret in settings.webhook_secret] == ["new", "old"]
    assert settings.max_body_bytes == 1 << 20
    assert settings.meter_policy() == MeterPolicy(
        deployment="eu-1",
        window_us=0,
        grace_us=500_000,
        dedupe_retention_us=48 * 3_600_000_000,
        group_by=("team_id", "key_alias"),
        cost_decimals=10,
        bill_cache_hits=True,
        bill_byok=False,
        bill_own_subscriptions=True,
        bill_silent_experiments=True,
        max_usd_per_call=Decimal("50.5"),
        max_usd_per_token=Decimal("0.01"),
        out_of_period_policy=OutOfPeriodPolicy.HOLD,
        event_code="tokens",
        organizations=("eu",),
    )


MALFORMED: list[tuple[str, tuple[str, ...]]] = [
    ("KAFKA_BOOTSTRAP_SERVERS", ("localhost", "http://localhost:9092", "a:9092,,b:9092", "a:9092,b")),
    ("KAFKA_PARTITIONS", ("0", "twelve", "1.5", "1001")),
    ("KAFKA_REPLICATION_FACTOR", ("0",)),
    ("KAFKA_SECURITY_PROTOCOL", ("TLS",)),
    ("KAFKA_SASL_MECHANISM", ("GSSAPI",)),
    ("KAFKA_SSL_CAFILE", ("/nowhere/ca.pem",)),
    ("KAFKA_SSL_CERTFILE", ("/nowhere/client.pem", __file__)),
    ("KAFKA_SSL_KEYFILE", ("/nowhere/client.key", __file__)),
    ("TOPIC_PREFIX", ("a b", "a/b", "x" * 101)),
    ("DEPLOYMENT_NAME", ("-a", "a b", "ä", "x" * 61)),
    ("POD_NAME", ("-a", "a b", "ä")),
    ("LAGO_API_URL", ("localhost:3000", "ftp://lago", "http://", "http://lago:port", "http://lago?x=1")),
    ("LAGO_TIMEOUT", ("0", "-1", "nan", "inf")),
    ("LAGO_CLICKHOUSE_DEDUP", ("perhaps",)),
    ("LAGO_WEBHOOK_URL", ("meter.example", "ftp://meter.example")),
    (
        "LAGO_ORGANIZATIONS",
        (
            "{",
            "eu",
            '[{"id": "eu", "url": "http://lago"}]',
            '[{"id": "eu", "url": "lago", "key": "k"}]',
            '[{"id": "e:u", "url": "http://lago", "key": "k"}]',
            '[{"id": "default", "url": "http://lago", "key": "k"}]',
            '[{"id": "eu", "url": "http://lago", "key": "k", "key_file": "/k"}]',
            '[{"id": "eu", "url": "http://lago", "key": "k"}, {"id": "eu", "url": "http://lago", "key": "l"}]',
            '[{"id": "eu", "url": "http://lago", "key": "k", "requests_per_second": 0}]',
        ),
    ),
    ("LAGO_ORGANIZATION_NAMES", (",", " , ")),
    ("ORG_ID_PREFIXES", (",", " , ")),
    ("SUBSCRIPTION_ID_TEMPLATE", ("sub", "{plan_code}", "{org_id}_{user}", "{org_id")),
    ("ALLOW_UNAUTHENTICATED", ("2",)),
    ("PORT", ("-1", "65536", "tcp://10.0.0.1:80")),
    ("MAX_BODY_BYTES", ("lots", "-1", "0")),
    ("WEBHOOK_TOLERANCE", ("0", "-1", "nan", "day")),
    ("WEBHOOK_TIMESTAMP_REQUIRED", ("maybe", "2")),
    ("WEBHOOK_ALLOWED_IPS", ("10.0.0.0/33", "10.0.0.1/8", "localhost", "10.0.0.1:80")),
    ("TRUSTED_PROXIES", ("any", "10.0.0.0/8;10.1.0.0/16")),
    ("WEBHOOK_RATE_LIMIT", ("-1", "nan", "inf", "fast")),
    ("API_RATE_LIMIT", ("-1", "nan", "inf", "fast")),
    ("AUTHORIZE_RATE_LIMIT", ("-1", "nan", "inf", "fast")),
    ("OIDC_ISSUER", ("id.example", "ftp://id.example")),
    ("OIDC_JWKS_URL", ("keys",)),
    ("SPOOL_MAX_BYTES", ("1023KiB", "all", "-1")),
    ("WINDOW_SECONDS", ("-60", "7", "86401", "172800")),
    ("GRACE_SECONDS", ("-1", "nan")),
    ("WINDOW_GROUP_BY", ("team", "team_id,team_id")),
    ("DEDUPE_RETENTION_HOURS", ("1", "241")),
    ("OUT_OF_PERIOD_POLICY", ("drop",)),
    ("COST_DECIMALS", ("5", "14")),
    ("CACHE_HIT_POLICY", ("free",)),
    ("BYOK_POLICY", ("free",)),
    ("CLIENT_OAUTH_POLICY", ("free",)),
    ("SILENT_EXPERIMENT_POLICY", ("free",)),
    ("MAX_USD_PER_CALL", ("0", "-1", "NaN", "much")),
    ("MAX_USD_PER_TOKEN", ("0", "-1", "Infinity", "much")),
    ("CUSTOMER_ID_FIELDS", (",", "customer", "user,user")),
    ("MAX_RETRIES", ("-1",)),
    ("RETRY_DELAY", ("0", "3601")),
    ("BATCH_SIZE", ("0", "101")),
    ("WORKER_CONCURRENCY", ("0",)),
    ("WORKER_PROCESSES", ("two", "1")),
    ("POSTGRES_PORT", ("0",)),
    ("LOG_LEVEL", ("LOUD",)),
    ("LOG_FORMAT", ("xml",)),
    ("LAGO_EVENT_CODE", ("x" * 256,)),
    ("AUTO_SUBSCRIBE", ("perhaps",)),
    ("MAP_BY_IDENTITY", ("perhaps",)),
    ("LITELLM_API_URL", ("localhost:4000", "ftp://litellm")),
    ("LITELLM_DATABASE_URL", ("mysql://litellm",)),
    ("API_PORT", ("-1", "65536")),
    ("OIDC_GRANT_DAYS", ("0", "3651", "x")),
    ("PROVIDER_KEYS_SECRET", ("secret", "A" * 44, f"{'+' * 43}=", f"{'A' * 43}=,{'A' * 43}=")),
    ("PROVIDER_KEYS_ROTATION_DAYS", ("0", "3651", "x")),
    ("METRICS_PORT", ("-1", "65536")),
    ("WEBHOOK_TIMEOUT", ("0", "3601", "nan")),
    ("HELD_IN_MEMORY", ("99", "0", "many")),
    ("MAPPING_DELAY_SECONDS", ("-1", "86401", "nan")),
    ("DATABASE_URL", ("mysql://db/x",)),
    ("CANARY_URL", ("ingress:8080", "http://ingress/?x=1")),
    ("CANARY_INTERVAL", ("0", "86401", "1.5")),
    ("CANARY_COST_USD", ("0", "-1", "nan", "much")),
    ("CANARY_BILLED_USD", ("0", "-1", "nan", "much")),
    ("CANARY_BILLED_WITHIN", ("0", "3601", "nan", "soon")),
    ("API_POSTGRES_CONNECTIONS", ("0", "101", "many")),
    ("OUTGOING_WEBHOOK_ALLOW_HTTP", ("2",)),
    ("OUTGOING_WEBHOOK_SECRETS", ("secret", "whsec_", "whsec_c2hvcnQ=", f"x-whsec_{'A' * 32}")),
    ("OUTGOING_WEBHOOK_URLS", ("hooks.example", "ftp://hooks.example", "https://hooks.example", "http://a")),
    ("OUTGOING_WEBHOOK_EVENTS", (",", "usage.lost", "usage.held,usage.held")),
    ("OUTGOING_WEBHOOK_HELD_USD", ("0", "NaN", "much")),
    ("OUTGOING_WEBHOOK_LOW_BALANCE_USD", ("-1", "inf", "much")),
    ("CREDITS_ALLOWED_OVERDRAFT", ("-1", "NaN", "much", "1000001")),
    ("CREDITS_USER_KINDS", (",", "client", "user,user")),
    ("STRIPE_API_URL", ("api.stripe.com", "ftp://api.stripe.com")),
    ("TRACING_ENABLED", ("perhaps",)),
    ("OTEL_TRACES_SAMPLER", ("xray", "1")),
    ("OTEL_TRACES_SAMPLER_ARG", ("-0.1", "1.1", "nan", "all")),
]
#: Variables that take any text: names, keys, secrets, a path.
ANY_TEXT = {
    *("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", "KAFKA_SSL_KEY_PASSWORD", "LAGO_API_KEY"),
    *("LAGO_WEBHOOK_SECRET", "LITELLM_MASTER_KEY"),
    *("WEBHOOK_SECRET", "WEBHOOK_TOKEN", "HOST", "OIDC_AUDIENCE", "OIDC_SCOPES_CLAIM", "OIDC_ORGS_CLAIM"),
    *("SPOOL_PATH", "KEPT_TAG_PREFIXES", "KEPT_METADATA", "POSTGRES_HOST", "POSTGRES_USER", "POSTGRES_PASSWORD"),
    *("POSTGRES_DB", "REDIS_URL", "OIDC_USER_CLAIM", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"),
    "OTEL_SERVICE_NAME",
}


@pytest.mark.parametrize(("variable", "malformed"), MALFORMED)
def test_a_malformed_value_is_refused_with_its_variables_name(variable: str, malformed: tuple[str, ...]) -> None:
    for value in malformed:
        with pytest.raises(ConfigurationError) as refused:
            load_settings({variable: value})
        assert refused.value.reason == variable
        assert refused.value.detail.startswith(f"{variable} ")


def test_every_variable_either_refuses_a_malformed_value_or_accepts_any_text() -> None:
    assert {variable for variable, _ in MALFORMED} == VARIABLES.keys() - ANY_TEXT
    for variable in ANY_TEXT:
        load_settings({variable: "any text: \u00e4 1/2"})


def test_all_malformed_variables_are_reported_together() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings({"PORT": "x", "BATCH_SIZE": "101", "OUT_OF_PERIOD_POLICY": "drop"})
    assert set(refused.value.reason.split(", ")) == {"PORT", "BATCH_SIZE", "OUT_OF_PERIOD_POLICY"}
    assert refused.value.detail.count(";") == 2


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_an_error_message_never_repeats_the_value(variable: str) -> None:
    """A secret put into the wrong variable must not end in a log."""
    with suppress(ConfigurationError):
        load_settings({variable: CANARY})  # a name or a secret: any text will do
        return
    with pytest.raises(ConfigurationError) as refused:
        load_settings({variable: CANARY})
    result = "".join(format_exception(refused.value))
    assert variable in result
    assert CANARY not in result


def test_secrets_are_not_printed_with_the_settings() -> None:
    holders = (
        "KAFKA_SASL_PASSWORD",
        "KAFKA_SSL_KEY_PASSWORD",
        "LAGO_API_KEY",
        "LITELLM_MASTER_KEY",
        "WEBHOOK_SECRET",
        "WEBHOOK_TOKEN",
    )
    secret = dict.fromkeys(
        (*holders, "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "DATABASE_URL", "POSTGRES_PASSWORD", "REDIS_URL"), CANARY
    )
    settings = load_settings(secret)
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)
    assert CANARY not in settings.model_dump_json()


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_sasl_protocol_needs_a_user_name_and_a_password(protocol: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings({"KAFKA_SECURITY_PROTOCOL": protocol})
    assert refused.value.reason == "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD"


def test_an_unreadable_client_certificate_stops_the_start_with_its_settings_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    sealed, other = authority.client("sealed", "hushed-secret"), authority.client("other")
    protocol, files = ("KAFKA_SECURITY_PROTOCOL", "KAFKA_SSL_CERTFILE"), {"KAFKA_SSL_KEYFILE": str(sealed.key)}
    tls = dict(zip(protocol, ("SSL", str(sealed.certificate)), strict=True))
    password = {"KAFKA_SSL_KEY_PASSWORD": "hushed-secret"}
    settings = load_settings(tls | files | password)
    assert (settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile) == (sealed.certificate, sealed.key)
    (tmp_path / "password").write_text("hushed-secret\n")
    assert load_settings(tls | files | {"KAFKA_SSL_KEY_PASSWORD_FILE": str(tmp_path / "password")}) == settings
    for given, named in (
        (tls, "KAFKA_SSL_KEYFILE"),
        (tls | files, "KAFKA_SSL_KEY_PASSWORD"),
        (tls | files | {"KAFKA_SSL_KEY_PASSWORD": CANARY}, "KAFKA_SSL_KEY_PASSWORD"),
        (tls | {"KAFKA_SSL_KEYFILE": str(other.key)}, "KAFKA_SSL_KEY_PASSWORD"),
        (tls | files | password | {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "KAFKA_SSL_CERTFILE"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            load_settings(given)
        assert refused.value.reason == named, given
        assert CANARY not in refused.value.detail


def test_a_database_url_overrides_its_parts_and_parts_are_quoted() -> None:
    parts = {"POSTGRES_HOST": "db", "POSTGRES_USER": "me@x", "POSTGRES_PASSWORD": "p/w:@", "POSTGRES_DB": "us age"}
    assert load_settings({"POSTGRES_HOST": "db"}).postgres_url == SecretStr(
        "postgresql://meterbridge@db:5432/meterbridge"
    )
    parts["POSTGRES_PORT"] = "5433"
    built = load_settings(parts).postgres_url
    assert built is not None
    assert built.get_secret_value() == "postgresql://me%40x:p%2Fw%3A%40@db:5433/us%20age"
    assert load_settings(parts | {"DATABASE_URL": "postgresql://a/b"}).postgres_url == SecretStr("postgresql://a/b")


def test_settings_are_immutable_and_have_no_other_names() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings.model_validate({"prot": 1})


def test_users_tokens_need_a_configured_audience() -> None:
    """A provider signs tokens for other services too."""
    with pytest.raises(ConfigurationError, match="OIDC_AUDIENCE is needed by OIDC_ISSUER"):
        load_settings({"OIDC_ISSUER": "https://id.example"})
    assert (
        load_settings({"OIDC_ISSUER": "https://id.example/", "OIDC_AUDIENCE": "a"}).oidc_issuer == "https://id.example/"
    )
