"""The values and connections from which the roles are built."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from schemas.errors import ConfigurationError
from schemas.policy import MeterPolicy
from schemas.topics import TopicNames
from streams.runtime import clock

if TYPE_CHECKING:
    # A process imports only the modules that its role needs.
    from streams.agents.meter import MeterSensors
    from streams.agents.organization_lanes import LaneSensors
    from streams.agents.projector import Projection, ProjectSensors
    from streams.agents.traces import Traces
    from streams.delivery.engine import Delivery
    from streams.delivery.to_an_organization import EventDelivery
    from streams.runtime.role import RoleSensors

    class RoleMetrics(MeterSensors, LaneSensors, ProjectSensors, RoleSensors, Protocol):
        """The reports of all roles."""


def _no_projection() -> "Projection":
    raise ConfigurationError("DATABASE_URL", "DATABASE_URL or POSTGRES_HOST must be set: the projector needs Postgres")


@dataclass(frozen=True, slots=True)
class Components:
    """The common values of the roles in one process.

    Fields:
        kafka: connection options for aiokafka.
        broker, credentials: connection options for Faust: a list of URLs and a credentials object.
        topics: names of the topics, with their prefix.
        group_prefix: the prefix of every consumer group and transactional id.
        partitions: configured number of partitions of the raw topic.
        topic_ids: Kafka's id of each topic, read at the start.
        mapping_delay_s: age of a table in seconds above which the meter waits.
        max_retries: attempts in the retry topic before an event becomes a dead letter.
        retry_delay_s: wait before the first of these attempts, seconds.
        delivery, projection: created at the first call, inside the running loop; `projection` for the projector only.
        instance_id: for static group membership, where the platform gives a stable name.
        now_us: the wall clock, microseconds since 1970 UTC.
        held_in_memory: number of held windows of a partition that stay in memory; others are on disk.
        leave: see `streams.runtime.role.Role`.
        organizations: like `delivery`, for each further Lago organisation that is configured, by name.
        traces: records spans; None = traces are off.
    """

    kafka: Mapping[str, Any] = field(repr=False)
    broker: str
    credentials: Any = field(repr=False)
    topics: TopicNames
    group_prefix: str
    partitions: int
    topic_ids: Mapping[str, str]
    policy: MeterPolicy
    mapping_delay_s: float
    max_retries: int
    retry_delay_s: float
    delivery: "Callable[[], Delivery]"
    sensors: "RoleMetrics"
    projection: "Callable[[], Projection]" = _no_projection
    instance_id: str = ""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    now_us: Callable[[], int] = clock.now_us
    held_in_memory: int = 10_000
    leave: Callable[[int], None] = os._exit
    organizations: "Mapping[str, Callable[[], EventDelivery]]" = field(default_factory=dict)
    traces: "Traces | None" = None

    def group(self, role: str) -> str:
        """Consumer group of a role, also the prefix of its transactional ids."""
        return f"{self.group_prefix}{role}"
