"""Writes off held usage: sends an order to the raw topic, which the customer's own ledger carries out and counts."""

import msgspec

from connectors.config.deployment import Deployment
from connectors.operations.audit_record import audited
from connectors.operations.ledgers import Held
from connectors.operations.sender import CommandProducer, Outgoing
from schemas.money import total
from schemas.records import WriteOff
from streams.core.metering.write_off import meant_by
from streams.runtime import clock
from streams.runtime.transactions import partition_of
from streams.state.step_writes import CONTROL, WRITE_OFF


def matching(held: list[Held], pattern: str) -> list[Held]:
    """Return the held usage that an order for `pattern` would write off, see `meant_by`."""
    means = meant_by(pattern)
    return [usage for usage in held if means(usage.customer)]


def order_write_off_of_all(
    deployment: Deployment,
    sender: CommandProducer,
    held: list[Held],
    pattern: str,
    until_us: int,
    reason: str,
) -> str:
    """Order the write-off of all of `held`, for the customers that `pattern` matches.

    Each partition gets the order. It writes off the matching usage that it holds when it reads the order.

    Args:
        until_us: only usage that ended at or before this moment is written off, microseconds since 1970 UTC.

    Returns:
        The id of the audit line.

    Raises:
        Unavailable: Kafka did not acknowledge the line or an order. A repeat finds the rest.
    """
    target = {"match": pattern, "until": str(until_us), "customers": str(len({usage.customer for usage in held}))}
    audit_id = _audited(deployment, sender, held, target, reason)
    value = msgspec.json.encode(WriteOff(audit_id, clock.now_us(), until_us, match=pattern))
    control = ((CONTROL, WRITE_OFF),)
    sender.send(Outgoing(deployment.topics.raw, b"", value, number, control) for number in range(deployment.partitions))
    return audit_id


def order_write_off(
    deployment: Deployment, sender: CommandProducer, held: list[Held], until_us: int, reason: str
) -> str:
    """Order the write-off of all of `held` of one customer that ended at or before `until_us`; return the audit line's
    id.

    The money leaves the ledger when its worker reads the order. Usage that comes later is held again. Each ledger that
    holds some of the usage gets the order; after `meterbridge topics expand` there may be several.

    Raises:
        Unavailable: Kafka did not acknowledge the line or the order.
    """
    customer = held[0].customer
    audit_id = _audited(deployment, sender, held, {"customer": customer, "until": str(until_us)}, reason)
    order = WriteOff(audit_id, clock.now_us(), until_us)
    raw, key, value = deployment.topics.raw, customer.encode(), msgspec.json.encode(order)
    ledgers = set().union({partition_of(key, deployment.partitions)}, *(usage.partitions for usage in held))
    sender.send(Outgoing(raw, key, value, number, ((CONTROL, WRITE_OFF),)) for number in sorted(ledgers))
    return audit_id


def _audited(
    deployment: Deployment, sender: CommandProducer, held: list[Held], target: dict[str, str], reason: str
) -> str:
    calls, usd = sum(usage.calls for usage in held), total(usage.usd for usage in held)
    return audited(deployment, sender, "held.write_off", target, reason=reason, count=calls, cost_usd=usd)
