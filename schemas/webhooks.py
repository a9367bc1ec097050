"""The messages of outgoing webhooks, which Meterbridge sends to other programs by HTTP (docs/webhooks.md).

The envelope is that of Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
"""

from decimal import Decimal
from typing import Final, Literal

import msgspec

USAGE_HELD: Final = "usage.held"
DEAD_LETTER: Final = "usage.dead_letter"
CREDITS_LOW: Final = "credits.low"
CREDITS_USED_UP: Final = "credits.used_up"
CREDITS_RECHARGED: Final = "credits.recharged"
PARTITION_HALTED: Final = "partition.halted"
PARTITION_RESUMED: Final = "partition.resumed"
TEST: Final = "webhook.test"
#: The types of messages. A test message is sent only by the command.
EVENT_TYPES: Final = (
    USAGE_HELD,
    DEAD_LETTER,
    CREDITS_LOW,
    CREDITS_USED_UP,
    CREDITS_RECHARGED,
    PARTITION_HALTED,
    PARTITION_RESUMED,
)


class HeldUsage(msgspec.Struct, frozen=True):
    """Usage of a customer waits, because it has no payer yet.

    Fields:
        customer_id: LiteLLM's customer id.
        reason: why the oldest usage waits (docs/errors.md).
        calls, cost_usd: totals of the waiting usage of this customer.
        since: when the oldest usage was counted, ISO 8601 UTC.
        first: true = no usage of this customer had waited before; false = the sum has reached the bound, or has
            doubled.
    """

    customer_id: str
    reason: str
    calls: int
    cost_usd: Decimal
    since: str
    first: bool


class DeadLetterNotice(msgspec.Struct, frozen=True):
    """Lago did not accept an event, and Meterbridge does not retry it.

    Fields:
        transaction_id: id of the event.
        reason: code of the last failure (docs/errors.md).
        amount_cents: amount of the event.
        calls: number of calls in the event.
        may_be_in_lago: whether Lago may have it all the same, and then bills it.
    """

    transaction_id: str
    external_subscription_id: str
    org_id: str
    customer_id: str
    reason: str
    amount_cents: Decimal
    calls: int
    may_be_in_lago: bool = False


class Balance(msgspec.Struct, frozen=True):
    """The prepaid credits of an account became low, were used up, or were recharged.

    Fields:
        account: `user:` or `org:` and the id.
        state: state of the balance now.
        balance_usd, overdraft_usd: remaining credits; usage beyond the credits.
    """

    account: str
    state: Literal["ok", "low", "used_up"]
    balance_usd: Decimal
    overdraft_usd: Decimal


class PartitionState(msgspec.Struct, frozen=True):
    """A partition of a topic is halted, or continues.

    Fields:
        role: role whose work is halted: `meter`, `sink`, `retry` or `project`.
        topic: name of the topic, with prefix.
        reason: why it is, or was, halted (docs/errors.md).
        since: when the worker detected it, ISO 8601 UTC.
    """

    role: str
    topic: str
    partition: int
    reason: str
    since: str


class TestMessage(msgspec.Struct, frozen=True):
    """Sent by `meterbridge webhooks test`.

    Fields:
        text: a sentence for people.
    """

    text: str


class _Envelope(msgspec.Struct, frozen=True, tag_field="type"):
    """The common part of messages of one type.

    Fields:
        timestamp: time of the detection or of the sending, ISO 8601 UTC.
    """

    timestamp: str


class HeldUsageMessage(_Envelope, frozen=True, tag=USAGE_HELD):
    """The body of the webhook `usage.held`."""

    data: HeldUsage


class DeadLetterMessage(_Envelope, frozen=True, tag=DEAD_LETTER):
    """The body of the webhook `usage.dead_letter`."""

    data: DeadLetterNotice


class BalanceMessage(msgspec.Struct, frozen=True):
    """The body of the webhooks `credits.low`, `credits.used_up` and `credits.recharged`.

    Fields:
        timestamp: when it was noticed, ISO 8601 UTC.
    """

    type: Literal["credits.low", "credits.used_up", "credits.recharged"]
    timestamp: str
    data: Balance


class PartitionMessage(msgspec.Struct, frozen=True):
    """The body of the webhooks `partition.halted` and `partition.resumed`.

    Fields:
        timestamp: when it was announced, ISO 8601 UTC.
    """

    type: Literal["partition.halted", "partition.resumed"]
    timestamp: str
    data: PartitionState


class TestWebhook(_Envelope, frozen=True, tag=TEST):
    """The body of the webhook `webhook.test`."""

    data: TestMessage


Message = HeldUsageMessage | DeadLetterMessage | BalanceMessage | PartitionMessage | TestWebhook
