"""The topology. Each role is a Faust app and a consumer group of its own.

    litellm.usage.raw ──> meter ──┬─> billing.lago.events ──> sink ──┬─> Lago
      billing.customers ···┘ ·    ├─> litellm.usage.enriched         ├─> billing.lago.retry ──> retry ──> Lago
      billing.orgs, .rates ··┘    ├─> litellm.usage.rejected         ├─> billing.lago.dlq
      meter.changelog <──────────>┘   billing.receipts <─────────────┘   (both roles)

    litellm.usage.enriched, billing.lago.events, billing.receipts, litellm.usage.rejected ──┐
    billing.customers, billing.orgs, billing.audit, billing.deliveries ─────────────────────┴─> project ──> Postgres

`meterbridge worker --only meter` runs a role; so does Faust's own command (connectors/processes/faust_apps.py).

A process runs one role. Modules that only this role needs are imported when its app is built, to save memory in the
others.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from aiokafka import TopicPartition

from schemas.customers import CustomerRecord
from schemas.rates import RateCard
from streams.components import Components
from streams.core.delivery.backoff import RetryPolicy
from streams.runtime.compacted_table import CompactedTable
from streams.runtime.faust_options import FAUST_OPTIONS
from streams.runtime.faust_transport import App
from streams.runtime.partition_task import PartitionProcessor
from streams.runtime.role import AnyRole, MultiTopicRole, Role

if TYPE_CHECKING:
    from streams.agents.meter import MeterWork
    from streams.agents.organization_lanes import OrganizationLane
    from streams.agents.projector import ProjectWork
    from streams.delivery.to_an_organization import EventDelivery
    from streams.state.orgs_table import OrgsTable

#: The shortest time between two transactions of a partition while fetch batches are small, seconds. A transaction costs
#: milliseconds of CPU in the worker and in the broker, regardless of its size. The time is halved if a client waits for
#: the result.
_LINGER_S = 0.2
#: The same for the projector, which has eight topics. Prepaid customers wait for their balances, so calls wait for a
#: shorter time than other records. `python -m bench.balance` measures it.
_PROJECT_LINGER_S, _PROJECT_CALLS_LINGER_S = 0.5, 0.2


def build_meter(components: Components) -> Role:
    """Build the meter, which turns raw calls into Lago events: deduplicates, maps, folds into windows, seals."""
    from streams.agents.meter import MeterWork
    from streams.runtime.forwarding import Forwarder
    from streams.state.held_on_disk import EvictedWindowsFile
    from streams.state.ledger import Ledger, LedgerCache, LedgerConfig

    topics, group = components.topics, components.group("meter")
    age = components.mapping_delay_s
    customers = CompactedTable(
        components.kafka, topics.customers, CustomerRecord, components.monotonic, "customers", age
    )
    orgs = _orgs(components)
    rate_cards = CompactedTable(components.kafka, topics.rates, RateCard, components.monotonic, "rates", age)
    components.sensors.following(customers.name, customers.lag_s)
    components.sensors.following(rate_cards.name, rate_cards.lag_s)
    topic_id = components.topic_ids[topics.raw]
    config = LedgerConfig(
        components.kafka, topics, topic_id, components.partitions, group, components.policy.deployment
    )
    cache = LedgerCache(components.monotonic)

    def work(partition: int) -> "MeterWork":
        return MeterWork(
            Ledger(partition, config, cache, components.now_us, lambda: EvictedWindowsFile(components.held_in_memory)),
            customers,
            orgs,
            components.policy,
            topic_id,
            components.mapping_delay_s,
            components.now_us,
            components.sensors,
            rate_cards,
            Forwarder(components.kafka, topics.raw, partition),
            components.traces,
        )

    linger_s = _LINGER_S if components.policy.window_us else _LINGER_S / 2
    tables = (customers, orgs, rate_cards)
    return Role(
        _app(components, "meter"), topics.raw, work, components.sensors, linger_s, components.leave, tables=tables
    )


def build_sink(components: Components) -> Role:
    """Build the sink, which posts events to Lago. Single events that Lago refuses go to the retry topic or the dead
    letters.
    """
    return _delivering(components, "sink", components.topics.events)


def build_retry(components: Components) -> Role:
    """Build the retry role, which posts waiting events again. Each length of the wait has a partition."""
    return _delivering(components, "retry", components.topics.retry)


def build_project(components: Components) -> MultiTopicRole:
    """Build the projector, which writes the records of all other roles as rows into Postgres."""
    from streams.agents.projector import ProjectWork

    app, topics = _app(components, "project"), components.topics

    def projecting(topic: str) -> Role:
        def work(partition: int) -> "ProjectWork":
            return ProjectWork(
                TopicPartition(topic, partition),
                components.kafka,
                components.group("project"),
                components.topic_ids[topic],
                components.projection(),
                RetryPolicy(components.random, base_s=0.2, cap_s=5.0),
                components.sleep,
                components.sensors,
            )

        linger_s = _PROJECT_CALLS_LINGER_S if topic == topics.enriched else _PROJECT_LINGER_S
        return Role(app, topic, work, components.sensors, linger_s, components.leave)

    return MultiTopicRole(*map(projecting, topics.projected))


ROLES: dict[str, Callable[[Components], AnyRole]] = {
    "meter": build_meter,
    "sink": build_sink,
    "retry": build_retry,
    "project": build_project,
}


def _orgs(components: Components) -> "OrgsTable":
    from streams.state.orgs_table import OrgsTable

    kafka, topic, age = components.kafka, components.topics.orgs, components.mapping_delay_s
    orgs = OrgsTable(kafka, topic, components.monotonic, age)
    components.sensors.following(orgs.name, orgs.lag_s)
    return orgs


def _delivering(components: Components, role: str, topic: str) -> Role:
    from streams.agents.organization_lanes import OrganizationLane, OrganizationLanes, lane_config
    from streams.agents.sink import DeliveryConfig, DeliveryWork
    from streams.delivery.to_an_organization import UnknownOrganization

    orgs = _orgs(components)
    config = DeliveryConfig(
        kafka=components.kafka,
        topics=components.topics,
        group=components.group(role),
        policy=components.policy,
        max_retries=components.max_retries,
        retry_base_s=components.retry_delay_s,
        mapping_delay_s=components.mapping_delay_s,
        random=components.random,
        now_us=components.now_us,
        sleep=components.sleep,
    )

    def work(partition: int) -> PartitionProcessor:
        tp = TopicPartition(topic, partition)
        own = DeliveryWork(tp, config, components.delivery(), orgs, components.sensors, components.traces)

        def lane(name: str, delivery: "EventDelivery") -> "OrganizationLane":
            return OrganizationLane(
                tp, lane_config(config, name), delivery, orgs, components.sensors, components.traces
            )

        return OrganizationLanes(
            own,
            {name: lane(name, delivery()) for name, delivery in components.organizations.items()},
            known=orgs.organizations,
            standing=lambda name: lane(name, UnknownOrganization(name)),
        )

    app = _app(components, role)
    return Role(app, topic, work, components.sensors, _LINGER_S / 2, components.leave, tables=(orgs,))


def _app(components: Components, role: str) -> App:
    return App(
        components.group(role),
        broker=components.broker,
        broker_credentials=components.credentials,
        store="memory://",
        datadir=str(Path(gettempdir()) / "meterbridge-faust"),  # Faust creates this topic; no role writes to it
        consumer_group_instance_id=f"{components.instance_id}-{role}" if components.instance_id else None,
        **FAUST_OPTIONS,
    )
