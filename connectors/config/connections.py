"""Makes values from the settings for code that does not get the settings: connections, credentials, names and policies.

Only this module unwraps a secret (tests/unit/config/test_values.py). The processes and the commands make each value once, and
pass it on.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from pydantic import SecretStr

from connectors.config.deployment import Deployment
from connectors.config.kafka_connection import KafkaConnection, TopicLayout
from connectors.config.lago_connections import KeyFile, LagoConnection
from connectors.config.organization_settings import LagoOrganization
from connectors.config.postgres_urls import DatabaseUrl, connecting
from connectors.config.settings import VARIABLES, Settings, own_settings
from schemas.errors import ConfigurationError, Rejected
from schemas.organizations import DEFAULT
from schemas.topics import TopicNames

T = TypeVar("T")
_LAGO = (
    "LAGO_API_URL",
    "LAGO_API_KEY",
    "LAGO_TIMEOUT",
    "LAGO_EVENT_CODE",
    "ORG_ID_PREFIXES",
    "SUBSCRIPTION_ID_TEMPLATE",
)
_KAFKA = ("KAFKA_", "TOPIC_PREFIX", "WEBHOOK_TIMEOUT")


def revealed(secret: SecretStr | None) -> str:
    """Return the text of a secret; `""` = there is none."""
    return "" if secret is None else secret.get_secret_value()


def all_revealed(secrets: Iterable[SecretStr]) -> list[str]:
    """Return the texts of several secrets, in order."""
    return [secret.get_secret_value() for secret in secrets]


def kafka_connection(settings: Settings) -> KafkaConnection:
    """Return the connection to Kafka. `Settings` refuses a SASL protocol without user name and password,
    and a certificate without its key."""
    return KafkaConnection(
        settings.kafka_bootstrap_servers,
        settings.kafka_security_protocol,
        settings.kafka_sasl_mechanism,
        settings.kafka_sasl_username or "",
        revealed(settings.kafka_sasl_password),
        str(settings.kafka_ssl_cafile or ""),
        str(settings.kafka_ssl_certfile or ""),
        str(settings.kafka_ssl_keyfile or ""),
        revealed(settings.kafka_ssl_key_password),
    )


def topic_layout(settings: Settings) -> TopicLayout:
    """Return the layout of the topics."""
    return TopicLayout(settings.topic_prefix, settings.kafka_partitions, settings.kafka_replication_factor)


def deployment_of(settings: Settings) -> Deployment:
    """Return the deployment, for operations."""
    return Deployment(
        kafka_connection(settings),
        settings.topic_prefix,
        TopicNames.with_prefix(settings.topic_prefix),
        settings.kafka_partitions,
        settings.meter_policy(),
        settings.customer_id_fields,
        settings.kept_tag_prefixes,
        settings.kept_metadata,
    )


def needed(database: T | None, settings: Settings) -> T:
    """Return what is connected to Postgres. Raises: ConfigurationError: see `postgres_url`."""
    if database is None:
        postgres_url(settings)
        raise AssertionError("postgres_url has raised")
    return database


def postgres_url(settings: Settings) -> DatabaseUrl:
    """Return the URL of Postgres, for asyncpg.

    Raises:
        ConfigurationError: the deployment has no Postgres, or the setting is not a URL.
    """
    url = settings.postgres_url
    if url is None:
        raise ConfigurationError(
            "DATABASE_URL",
            "DATABASE_URL or POSTGRES_HOST must be set, for example DATABASE_URL=postgresql://localhost/meterbridge",
        )
    try:
        connecting(url.get_secret_value())
    except Rejected as error:
        raise ConfigurationError("DATABASE_URL", f"DATABASE_URL {error.detail}") from None
    return DatabaseUrl(url.get_secret_value())


def lago_connections(settings: Settings) -> tuple[LagoConnection, ...]:
    """Return every Lago organisation of the deployment, the default one first.

    Raises:
        ConfigurationError: two organisations have the same webhook secret, so a signature would not show the sender.
    """
    key = revealed(settings.lago_api_key)
    default = LagoConnection(
        DEFAULT,
        settings.lago_api_url,
        lambda: key,
        tuple(all_revealed(settings.lago_webhook_secret)),
        settings.lago_clickhouse_dedup,
        0.0,
        settings.worker_concurrency,
        settings.lago_timeout,
    )
    every = default, *(_further(one, settings) for one in settings.open_organizations)
    secrets = [secret for one in every for secret in set(one.webhook_secrets)]
    if len(set(secrets)) < len(secrets):
        raise ConfigurationError("LAGO_ORGANIZATIONS", "LAGO_ORGANIZATIONS: two organisations have one webhook_secret")
    return every


def _further(one: LagoOrganization, settings: Settings) -> LagoConnection:
    return LagoConnection(
        one.id,
        str(one.url),
        partial(revealed, one.key) if one.key_file is None else KeyFile(one.key_file, one.id),
        tuple(all_revealed(one.webhook_secret)),
        one.clickhouse_dedup,
        one.requests_per_second or 0.0,
        one.concurrency or settings.worker_concurrency,
        settings.lago_timeout,
    )


def environment_of_others() -> dict[str, str]:
    """Return the environment of this process without our variables, for a program whose settings are all set
    explicitly.
    """
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


@dataclass(frozen=True, slots=True)
class LagoAccess:
    """The values with which the billing of orgs calls Lago.

    Fields:
        key: `""` = there is none.
        timeout_s: of one request.
        prefixes, template: see `OrgBilling`.
    """

    url: str
    key: str = field(repr=False)
    timeout_s: float
    event_code: str
    prefixes: tuple[str, ...]
    template: str


@dataclass(frozen=True, slots=True)
class UsageKafka:
    """The Kafka in which another program records usage; `answer_within_s`: seconds that Kafka may take."""

    connection: KafkaConnection
    layout: TopicLayout
    answer_within_s: float


def lago_of_environment() -> LagoAccess:
    """Return the access to Lago from the current environment, in a process of another program. Raises:
    ConfigurationError.
    """
    settings = own_settings(_LAGO)
    return LagoAccess(
        settings.lago_api_url,
        revealed(settings.lago_api_key),
        settings.lago_timeout,
        settings.lago_event_code,
        settings.org_id_prefixes,
        settings.subscription_id_template,
    )


def org_prefixes_of_environment() -> tuple[str, ...]:
    """Return `ORG_ID_PREFIXES` from the current environment. Raises: ConfigurationError."""
    return own_settings(("ORG_ID_PREFIXES",)).org_id_prefixes


def usage_kafka_of_environment() -> UsageKafka | None:
    """Kafka from the current environment; None = it does not set `KAFKA_BOOTSTRAP_SERVERS`. Raises: ConfigurationError."""
    settings = own_settings(_KAFKA)
    if "kafka_bootstrap_servers" not in settings.model_fields_set:
        return None
    return UsageKafka(kafka_connection(settings), topic_layout(settings), settings.webhook_timeout)
