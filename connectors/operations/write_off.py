"""Held usage is given up on: an order in the raw topic, which the customer's own ledger carries out and accounts for."""

import time

import msgspec

from connectors.config.deployment import Deployment
from connectors.operations.audit_record import audited
from connectors.operations.ledgers import Held
from connectors.operations.sender import CommandProducer, Outgoing
from schemas.money import ZERO, add
from schemas.records import WriteOff
from streams.core.metering.write_off import meant_by
from streams.state.step_writes import CONTROL, WRITE_OFF


def matching(held: list[Held], pattern: str) -> list[Held]:
    """Those that an order for `pattern` would write off, see `meant_by`."""
    means = meant_by(pattern)
    return [one for one in held if means(one.customer)]


def order_write_off_of_all(
    deployment: Deployment,
    sender: CommandProducer,
    held: list[Held],
    pattern: str,
    until_us: int,
    reason: str,
    actor: str = "",
) -> str:
    """Order all of `held`, of the customers that `pattern` matches, to be written off; the id of the one audit line.

    Each partition gets the order, and writes off what it holds under the pattern when it reads it.

    Raises:
        Unavailable: Kafka did not take the line, or an order; given again it finds what is left.
    """
    total = ZERO
    for one in held:
        total = add(total, one.usd)
    target = {"match": pattern, "until": str(until_us), "customers": str(len({one.customer for one in held}))}
    calls = sum(one.calls for one in held)
    audit_id = audited(
        deployment, sender, "held.write_off", target, actor=actor, reason=reason, count=calls, cost_usd=total
    )
    value = msgspec.json.encode(WriteOff(audit_id, time.time_ns() // 1000, until_us, match=pattern))
    control = ((CONTROL, WRITE_OFF),)
    sender.send(Outgoing(deployment.topics.raw, b"", value, number, control) for number in range(deployment.partitions))
    return audit_id


def order_write_off(
    deployment: Deployment, sender: CommandProducer, held: list[Held], until_us: int, reason: str, actor: str = ""
) -> str:
    """Order all of `held`, of one customer, that ended up to `until_us` to be written off; the audit line's id.

    The money leaves the ledger when its worker reads the order. Usage that comes later is held again.

    Raises:
        Unavailable: Kafka did not take the line, or the order.
    """
    customer, total = held[0].customer, ZERO
    for one in held:
        total = add(total, one.usd)
    target = {"customer": customer, "until": str(until_us)}
    calls = sum(one.calls for one in held)
    audit_id = audited(
        deployment, sender, "held.write_off", target, actor=actor, reason=reason, count=calls, cost_usd=total
    )
    order = WriteOff(audit_id, time.time_ns() // 1000, until_us)
    raw = deployment.topics.raw
    sender.send([Outgoing(raw, customer.encode(), msgspec.json.encode(order), headers=((CONTROL, WRITE_OFF),))])
    return audit_id
