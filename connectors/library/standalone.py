"""Org billing from `LAGO_API_URL` and `LAGO_API_KEY` alone, for a process that was not told more with `serve_with`.

Whatever only speaks to Lago needs no more. Recorded usage goes through Kafka, so that it is billed once: it needs
`KAFKA_BOOTSTRAP_SERVERS` (and `TOPIC_PREFIX`) too, or Meterbridge's API (docs/sdk.md).
"""

import asyncio
import time
from asyncio import AbstractEventLoop
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from connectors.billing.metered_events import MeteredEvent
from connectors.billing.org_billing import OrgBilling
from connectors.billing.usage_limits import FixedLimits, UsageLimits
from connectors.config.connections import (
    LagoAccess,
    lago_of_environment,
    org_prefixes_of_environment,
    usage_kafka_of_environment,
)
from connectors.lago.client import LagoClient, lago_http
from connectors.lago.errors import LagoRejected
from schemas.moments import parse_us
from schemas.topics import TopicNames

if TYPE_CHECKING:
    from connectors.kafka.producer import KafkaProducer

_CONNECTIONS = 8
#: How long Kafka may take to say which topics it has.
_ANSWER_S = 5.0


class StandaloneBilling:
    """One event loop's org billing; `of` gives it."""

    _by_loop: ClassVar["WeakKeyDictionary[AbstractEventLoop, StandaloneBilling]"] = WeakKeyDictionary()

    def __init__(self, access: LagoAccess) -> None:
        self.access = access
        # No idle connection is kept: whoever calls a function now and then closes nothing.
        http = lago_http(access.timeout_s, _CONNECTIONS, keep_alive=False)
        self.lago = LagoClient(http, access.url, access.key)
        self.billing = OrgBilling(
            self.lago,
            AdoptedIds(),
            UsageThroughKafka(),
            now_us=_now_us,
            prefixes=access.prefixes,
            template=access.template,
            stamp=self._customer_since_us,
        )
        self.limits = UsageLimits(self.billing, FixedLimits(), tokens_code=access.event_code)

    @classmethod
    def of(cls) -> "StandaloneBilling":
        """This loop's, by the environment as it is now. Raises: ConfigurationError: a variable is malformed."""
        access, loop = lago_of_environment(), asyncio.get_running_loop()
        known = cls._by_loop.get(loop)
        if known is None or known.access != access:
            known = cls._by_loop[loop] = cls(access)
        return known

    def needs_key(self) -> "StandaloneBilling":
        """Raises: LagoRejected: there is none."""
        if not self.access.key:
            raise LagoRejected("LAGO_API_KEY", "LAGO_API_KEY must be set: Lago answers nobody without it")
        return self

    async def _customer_since_us(self, org_id: str) -> int:
        """The same whenever and wherever it is asked: of two processes that subscribe an org at once, the second finds
        the first one's subscription under the same id."""
        customer = await self.lago.customer(org_id)
        return _now_us() if customer is None or customer.created_at is None else parse_us(customer.created_at)


def is_org(external_id: str) -> bool:
    """Whether the id begins as an org's does, by `ORG_ID_PREFIXES`. Raises: ConfigurationError."""
    return external_id.startswith(org_prefixes_of_environment())


class AdoptedIds:
    """`SubscriptionIds` of whoever keeps none: what runs in Lago is adopted, and a new id is the same for a customer."""

    async def recall(self, org_id: str) -> str | None:  # noqa: ARG002  # the protocol's
        """See `SubscriptionIds`."""
        return None

    async def remember(self, org_id: str, proposed: str) -> str:  # noqa: ARG002
        """See `SubscriptionIds`."""
        return proposed


class UsageThroughKafka:
    """`UsageSink` on the Kafka of the environment, with a producer for each event loop."""

    _producers: ClassVar[dict[AbstractEventLoop, "KafkaProducer"]] = {}

    async def record(self, event: MeteredEvent) -> None:
        """Durable on return.

        Raises:
            LagoRejected: `usage_needs_kafka`: no Kafka is named, or it has not our topics.
            Unavailable: it does not answer now; the same event again is safe.
        """
        named = usage_kafka_of_environment()
        if named is None:
            raise LagoRejected(
                "usage_needs_kafka",
                "usage is billed once because it goes through Kafka: set KAFKA_BOOTSTRAP_SERVERS, "
                "or record it through Meterbridge's API with meterbridge_sdk (docs/sdk.md)",
            )
        from connectors.billing.usage_recorder import KafkaUsage
        from connectors.kafka.admin import check_topics
        from connectors.kafka.client_config import librdkafka_config
        from connectors.kafka.producer import KafkaProducer, producer_config

        loop = asyncio.get_running_loop()
        if loop not in self._producers:
            if complaints := await asyncio.to_thread(check_topics, named.connection, named.layout, _ANSWER_S):
                raise LagoRejected("usage_needs_kafka", " ".join(complaints))
            security = {name: value for name, value in librdkafka_config(named.connection).items() if name != "logger"}
            config = producer_config(named.connection.servers, answer_within_s=named.answer_within_s, security=security)
            for ended in [known for known in self._producers if known.is_closed()]:
                await self._producers.pop(ended).close(0.0)
            self._producers.setdefault(loop, KafkaProducer(config))
        raw = TopicNames.with_prefix(named.layout.prefix).raw
        await KafkaUsage(self._producers[loop], raw, now_us=_now_us).record(event)


def _now_us() -> int:
    return time.time_ns() // 1000
