"""What the chart knows of Kafka, from the code: topics, rights, and which setting a role reads.

The chart's templates read these files. In names they put `TOPIC_PREFIX` and `DEPLOYMENT_NAME` for the two marks.
"""

from pathlib import Path
from typing import Any, Final

import yaml

from connectors.config.settings import VARIABLES
from connectors.kafka.acls import CLUSTER, GROUP, OPERATOR, TOPIC, TRANSACTIONAL_ID, acls
from schemas.topics import (
    CATALOGUE,
    ENRICHED,
    EVENTS,
    RAW,
    RETRY,
    Partitions,
    TopicNames,
    partition_count,
    topic_config,
)

PREFIX, DEPLOYMENT = "@PREFIX@", "@DEPLOYMENT@"
COMPOSE: Final = Path(__file__).parents[2] / "docker-compose.kafka.yml"

#: The topic whose lag says how many pods a role needs: the one in which calls or events come to it.
SCALED: Final = {"meter": RAW.name, "sink": EVENTS.name, "retry": RETRY.name, "project": ENRICHED.name}
#: The account in Kafka of each component of the chart.
ACCOUNTS: Final = {
    "webhooks": "ingress",
    **{role: role for role in ("api", "meter", "sink", "retry", "project")},
    "tools": OPERATOR,
}
#: The service of the compose file whose variables a component has: there each variable is given only to those who read it.
_SERVICES: Final = {
    "webhooks": "ingress",
    "api": "api",
    **dict.fromkeys(("meter", "sink", "retry"), "worker"),
    "project": "worker",
    "canary": "canary",
    "tools": "tools",
    "topics": "topics",
    "tables": "tables",
}
_TRACING: Final = {"TRACING_ENABLED", "OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
#: Settings that the compose file leaves at their defaults.
_MORE: Final = {
    "webhooks": {"ALLOW_UNAUTHENTICATED", *_TRACING},
    **dict.fromkeys(("meter", "sink", "retry"), _TRACING),
    "api": {"STRIPE_API_URL"},
    "tools": {"ALLOW_UNAUTHENTICATED", "STRIPE_API_URL"},
}
_KAFKA: Final = {name for name in VARIABLES if name.startswith("KAFKA_")}
#: The secret settings of each component; a job has only those of what it changes.
_POSTGRES: Final = ("DATABASE_URL", "POSTGRES_PASSWORD")
_API: Final = (
    "LAGO_API_KEY",
    "LAGO_ORGANIZATIONS",
    "LAGO_WEBHOOK_SECRET",
    "LITELLM_MASTER_KEY",
    "PROVIDER_KEYS_SECRET",
    "REDIS_URL",
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
    *_POSTGRES,
)
#: The addresses may contain a token.
_OUTGOING: Final = ("OUTGOING_WEBHOOK_SECRETS", "OUTGOING_WEBHOOK_URLS")
_OF_KAFKA: Final = ("KAFKA_SASL_PASSWORD", "KAFKA_SSL_KEY_PASSWORD")
_LAGO: Final = ("LAGO_API_KEY", "LAGO_ORGANIZATIONS")
_WEBHOOKS: Final = ("WEBHOOK_SECRET", "WEBHOOK_TOKEN")
SECRETS: Final = {
    "webhooks": (*_OF_KAFKA, *_WEBHOOKS),
    "api": (*_OF_KAFKA, *_API),
    **dict.fromkeys(("meter", "sink", "retry"), (*_OF_KAFKA, *_LAGO)),
    "project": (*_OF_KAFKA, *_LAGO, *_OUTGOING, *_POSTGRES),
    "canary": ("LAGO_API_KEY", *_WEBHOOKS),
    "tools": (*_OF_KAFKA, "LITELLM_DATABASE_URL", *_API, *_OUTGOING, *_WEBHOOKS),
    "topics": _OF_KAFKA,
    "tables": _POSTGRES,
}
_KINDS: Final = {TOPIC: "topic", GROUP: "group", TRANSACTIONAL_ID: "transactionalId"}


def every_secret() -> list[str]:
    """Every secret setting, in the order of its name."""
    return sorted({name for names in SECRETS.values() for name in names})


def topics() -> dict[str, Any]:
    """The catalogue: `count` where the number of partitions is fixed; what replication adds to each topic's settings."""
    listed = []
    for topic in CATALOGUE:
        entry: dict[str, Any] = {"name": topic.name, "partitions": topic.partitions.name}
        if topic.partitions not in (Partitions.LIKE_RAW, Partitions.AS_CREATED):
            entry["count"] = partition_count(topic, 0)
        listed.append(entry | {"config": dict(topic.config)})
    single, replicated = (
        {name: value for name, value in topic_config(RAW, copies).items() if name not in RAW.config}
        for copies in (1, 3)
    )
    return {"topics": listed, "single": single, "replicated": replicated, "scaled": dict(SCALED)}


def rights() -> dict[str, list[dict[str, Any]]]:
    """The rules of each component's KafkaUser, one a resource."""
    entries = list(acls(TopicNames.with_prefix(PREFIX), PREFIX, DEPLOYMENT))
    found: dict[str, list[dict[str, Any]]] = {}
    for component, role in ACCOUNTS.items():
        grouped: dict[tuple[str, str, bool], list[str]] = {}
        for acl in entries:
            if acl.role == role:
                grouped.setdefault((acl.resource, acl.name, acl.prefixed), []).append(acl.operation)
        found[component] = [
            {
                "resource": _resource(resource, name, prefixed=prefixed),
                "operations": operations,
            }
            for (resource, name, prefixed), operations in grouped.items()
        ]
    return found


def _resource(kind: str, name: str, *, prefixed: bool) -> dict[str, str]:
    """A resource as a KafkaUser names it; there is one cluster, so it has no name."""
    if kind == CLUSTER:
        return {"type": "cluster"}
    return {"type": _KINDS[kind], "name": name, "patternType": "prefix" if prefixed else "literal"}


def roles() -> dict[str, dict[str, list[str]]]:
    """The settings and the secret settings that each component reads."""
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    secrets = set(every_secret())
    found = {}
    for component, service in _SERVICES.items():
        settings = {name for name in services[service]["environment"] if name in VARIABLES} - secrets
        settings |= _MORE.get(component, set())
        settings |= {"POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_DB"} if "POSTGRES_HOST" in settings else set()
        if component in ("meter", "sink", "retry"):
            settings -= {name for name in settings if name.startswith(("POSTGRES_", "OUTGOING_WEBHOOK_"))}
        settings -= {"WORKER_PROCESSES"}  # a pod runs one role
        if component == "tables":
            settings -= {"TOPIC_PREFIX", "DEPLOYMENT_NAME", "HOST", "METRICS_PORT", *_KAFKA}
        elif component == "canary":
            pass  # it knows no Kafka
        elif component == "topics":
            settings = settings - {"HOST", "METRICS_PORT"} | _KAFKA - secrets
        else:
            settings |= _KAFKA - secrets
        found[component] = {"settings": sorted(settings), "secrets": sorted(SECRETS[component])}
    return found
