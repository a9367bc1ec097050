"""What docs/configuration.md says about the settings as a whole: which ones a production installation sets, and what an empty default means."""

from collections.abc import Mapping
from typing import Final

#: The settings that a production installation sets, and why.
PRODUCTION: Final[Mapping[str, str]] = {
    "kafka_bootstrap_servers": "The brokers of your Kafka; the default is a broker on the same machine.",
    "kafka_replication_factor": "`3`: a broker can fail without a call being lost. Set it before `topics create`.",
    "lago_api_url": "Your Lago, e.g. `https://lago.example.com`; the default is a Lago on the same machine.",
    "lago_api_key": "Lago refuses all events without it, and they wait in Kafka.",
    "webhook_token": "What LiteLLM sends as bearer token; `WEBHOOK_SECRET` instead if all senders sign. "
    "Without either the ingress does not start.",
    "litellm_master_key": "The bearer token of the management API; without it only API keys and users have access.",
    "database_url": "Postgres, for audit log, `explain`, credits and analytics; or `POSTGRES_HOST` and its companions.",
    "spool_path": "A file on a persistent volume, so that calls are accepted while Kafka does not answer.",
    "customer_id_fields": "`user,team,organization,key`: a client cannot name another customer by writing `end_user`.",
    "host": "`0.0.0.0` if LiteLLM runs on another machine or in another container.",
}

#: Empty by default, and Meterbridge bills nothing without them.
REQUIRED: Final = frozenset({"lago_api_key", "litellm_master_key", "webhook_token"})
#: Empty by default: what they switch on is off.
OFF: Final = frozenset(
    {
        "database_url",
        "kept_metadata",
        "kept_tag_prefixes",
        "lago_organizations",
        "lago_webhook_secret",
        "lago_webhook_url",
        "litellm_database_url",
        "oidc_issuer",
        "outgoing_webhook_secrets",
        "outgoing_webhook_urls",
        "postgres_host",
        "provider_keys_secret",
        "redis_url",
        "spool_path",
        "stripe_api_key",
        "stripe_webhook_secret",
    }
)


def when_empty(name: str) -> str:
    """What the page says of a setting whose default is empty: `required`, `off` or `optional`."""
    if name in REQUIRED:
        return "*required*"
    return "*off*" if name in OFF else "*optional*"
