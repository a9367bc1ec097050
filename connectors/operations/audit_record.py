"""Writes audit lines of commands: each action that changes what happens to usage first writes a line to `billing.audit`."""

import getpass
import os
import socket
from collections.abc import Mapping
from contextlib import closing
from decimal import Decimal
from secrets import token_hex

from connectors.access.audit_chain import sealed
from connectors.access.audit_tail import Tail
from connectors.config.deployment import Deployment
from connectors.operations.sender import CommandProducer, Outgoing
from schemas.records import AuditRecord
from streams.runtime import clock


def audited(
    deployment: Deployment,
    sender: CommandProducer,
    action: str,
    target: Mapping[str, str],
    *,
    actor: str = "",
    reason: str = "",
    count: int = 0,
    cost_usd: Decimal = Decimal(0),
    before: str = "",
    after: str = "",
) -> str:
    """Write an audit line, durable on return. Call this before the action has any effect.

    Args:
        action: name of the action, for example `dlq.requeue`.
        target: the object of the action.
        actor: the person or process that acts; `""` = the user of the operating system, see `who`.
        count, cost_usd: number of affected records, and their dollars.
        before, after: the state before the action and the requested state, as JSON text; `""` = nothing.

    Returns:
        The id of the line.

    Raises:
        Unavailable: the line could not be written, so the action must not happen.
    """
    line = AuditRecord(
        *(token_hex(8), clock.now_us(), actor or who(), action, dict(target), reason, count, cost_usd),
        before=before,
        after=after,
    )
    topic = deployment.topics.audit
    with closing(Tail(deployment.kafka, topic)) as tail:
        sender.send([Outgoing(topic, line.audit_id.encode(), sealed(line, tail.chain_head()))])
    return line.audit_id


def who() -> str:
    """Return the user of the operating system who runs this command: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
