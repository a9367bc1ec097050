"""Finds usage in flight. It must reach Lago before its subscription may end, because Lago bills nothing after the end."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from connectors.config.deployment import Deployment
from connectors.operations.dead_letters import BOTH, Filters, found_letters
from connectors.operations.ledgers import ledgers_of
from connectors.operations.unread import oldest_waiting_s
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from schemas.topics import RETRY_TIERS
from streams.core.delivery.backoff import retry_delay

#: A topic whose oldest record has waited longer may hold usage of any customer, seconds.
WAITING_S = 3600.0


@dataclass(slots=True)
class UsageInFlight:
    """Usage that has not reached Lago yet.

    Fields:
        open: LiteLLM customers, orgs and subscriptions with usage in a ledger. For held usage it has only the customer.
        dead: customers and subscriptions with dead letters.
        behind: topics whose oldest record has waited longer than `WAITING_S`.
    """

    open: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    behind: set[str] = field(default_factory=set)

    def of(self, names: Iterable[str]) -> str:
        """Say why usage of these customers, orgs or subscriptions may still reach Lago; `""` = none can."""
        customers = set(names)
        if self.behind:
            return f"not all is delivered: {', '.join(sorted(self.behind))}"
        if self.open & customers:
            return "usage is not sealed yet: meterbridge held list"
        return "there are dead letters: meterbridge dlq list" if self.dead & customers else ""


async def find_usage_in_flight(deployment: Deployment) -> UsageInFlight:
    """Read the usage in flight from the ledgers, the dead letters and the ends of the topics.

    Raises:
        TopicProblem, Unavailable; aiokafka's errors where the broker does not answer.
    """
    in_flight = UsageInFlight()
    for state in (await ledgers_of(deployment)).values():
        for window in state.windows.values():
            in_flight.open |= {window.customer_id, window.org_id, window.subscription} - {""}
    await asyncio.to_thread(_dead_letters, deployment, in_flight)
    waiting = await asyncio.to_thread(oldest_waiting_s, deployment)
    in_flight.behind = {topic for topic, seconds in waiting.items() if seconds > WAITING_S}
    return in_flight


def _dead_letters(deployment: Deployment, in_flight: UsageInFlight) -> None:
    for dead_letter in found_letters(deployment, BOTH, Filters()):
        in_flight.dead |= {dead_letter.customer, dead_letter.subscription} - {""}


def settled_us(policy: MeterPolicy, max_retries: int, retry_delay_s: float) -> int:
    """Return the longest time from the end of a call until its event is at Lago without an operator's action,
    microseconds.

    It is the sum of the dedupe retention, one hour, the window and its grace, all waits between retries, and
    `WAITING_S`.

    Args:
        retry_delay_s: wait before the first retry, seconds; each further wait is twice as long.
    """
    dedupe_retention_us = policy.dedupe_retention_us + HOUR_US
    window_us = policy.window_us + policy.grace_us
    tiers = min(max_retries, RETRY_TIERS)
    waits = [retry_delay(attempt, retry_delay_s, jitter=1.0) for attempt in range(1, tiers + 1)]
    last_s = waits[-1] * (max_retries - tiers) if waits else 0.0
    return dedupe_retention_us + window_us + round((sum(waits) + last_s + WAITING_S) * SECOND_US)
