"""The billing of orgs with only `LAGO_API_URL` and `LAGO_API_KEY`, for a process that did not call `serve_with`.

Usage is recorded through Kafka, so that it is billed once. So recording also needs `KAFKA_BOOTSTRAP_SERVERS` (and
`TOPIC_PREFIX`), or the API of Meterbridge (docs/sdk.md).
"""

import asyncio
from asyncio import AbstractEventLoop
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from connectors.billing.metered_events import MeteredEvent
from connectors.billing.org_billing import OrgBilling
from connectors.billing.usage_limits import StaticLimits, UsageLimits
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
from streams.runtime.clock import now_us

if TYPE_CHECKING:
    from connectors.kafka.producer import KafkaProducer

_CONNECTIONS = 8
#: Seconds that Kafka may take to list its topics.
_ANSWER_S = 5.0


class StandaloneBilling:
    """The billing of orgs for one event loop; `of` returns it."""

    _by_loop: ClassVar["WeakKeyDictionary[AbstractEventLoop, StandaloneBilling]"] = WeakKeyDictionary()

    def __init__(self, access: LagoAccess) -> None:
        self.access = access
        # No idle connection is kept, because the callers of single functions close nothing.
        http = lago_http(access.timeout_s, _CONNECTIONS, keep_alive=False)
        self.lago = LagoClient(http, access.url, access.key)
        self.billing = OrgBilling(
            self.lago,
            AdoptedIds(),
            UsageThroughKafka(),
            now_us=now_us,
            prefixes=access.prefixes,
            template=access.template,
            stamp=self._customer_since_us,
        )
        self.limits = UsageLimits(self.billing, StaticLimits(), tokens_code=access.event_code)

    @classmethod
    def of(cls) -> "StandaloneBilling":
        """Return the object of this event loop, for the current environment. Raises: ConfigurationError: a variable is
        malformed.
        """
        access, loop = lago_of_environment(), asyncio.get_running_loop()
        known = cls._by_loop.get(loop)
        if known is None or known.access != access:
            known = cls._by_loop[loop] = cls(access)
        return known

    def needs_key(self) -> "StandaloneBilling":
        """Check that there is an API key. Raises: LagoRejected."""
        if not self.access.key:
            raise LagoRejected("LAGO_API_KEY", "LAGO_API_KEY must be set: Lago answers no request without it")
        return self

    async def _customer_since_us(self, org_id: str) -> int:
        """Return a moment that is the same in every process: if two processes subscribe an org at the same time, the
        second finds the subscription of the first under the same id.
        """
        customer = await self.lago.customer(org_id)
        return now_us() if customer is None or customer.created_at is None else parse_us(customer.created_at)


def is_org(external_id: str) -> bool:
    """Return whether an id begins as ids of orgs do (`ORG_ID_PREFIXES`). Raises: ConfigurationError."""
    return external_id.startswith(org_prefixes_of_environment())


class AdoptedIds:
    """`SubscriptionIds` without a store: a running subscription in Lago is adopted, and a new id depends only on the customer."""

    async def recall(self, org_id: str) -> str | None:  # noqa: ARG002  # the protocol's
        """See `SubscriptionIds`."""
        return None

    async def remember(self, org_id: str, proposed: str) -> str:  # noqa: ARG002
        """See `SubscriptionIds`."""
        return proposed


class UsageThroughKafka:
    """`UsageSink` for the Kafka of the environment, with one producer per event loop."""

    _producers: ClassVar[dict[AbstractEventLoop, "KafkaProducer"]] = {}

    async def record(self, event: MeteredEvent) -> None:
        """Durable on return.

        Raises:
            LagoRejected: `usage_needs_kafka`: no Kafka is configured, or it does not have our topics.
            Unavailable: Kafka does not answer now; repeating with the same event is safe.
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
        from connectors.kafka.client_config import librdkafka_config, producer_config
        from connectors.kafka.errors import in_one
        from connectors.kafka.producer import KafkaProducer

        loop = asyncio.get_running_loop()
        if loop not in self._producers:
            if complaints := await asyncio.to_thread(check_topics, named.connection, named.layout, _ANSWER_S):
                raise LagoRejected("usage_needs_kafka", in_one(complaints))
            security = {name: value for name, value in librdkafka_config(named.connection).items() if name != "logger"}
            config = producer_config(named.connection.servers, answer_within_s=named.answer_within_s, security=security)
            for ended in [known for known in self._producers if known.is_closed()]:
                await self._producers.pop(ended).close(0.0)
            self._producers.setdefault(loop, KafkaProducer(config))
        raw = TopicNames.with_prefix(named.layout.prefix).raw
        await KafkaUsage(self._producers[loop], raw, now_us=now_us).record(event)
