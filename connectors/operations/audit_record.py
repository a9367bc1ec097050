"""Whoever changes what happens to usage leaves a line in `billing.audit` first."""

import getpass
import os
import socket
import time
from collections.abc import Mapping
from contextlib import closing
from decimal import Decimal
from secrets import token_hex

from connectors.access.audit_chain import sealed
from connectors.access.audit_tail import Tail
from connectors.config.deployment import Deployment
from connectors.operations.sender import CommandProducer, Outgoing
from schemas.records import AuditRecord


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
) -> str:
    """The id of the line, which is durable when this returns: call it before the action has any effect.

    Raises:
        Unavailable: the line could not be written, so nothing may be done.
    """
    line = AuditRecord(
        token_hex(8), time.time_ns() // 1000, actor or who(), action, dict(target), reason, count, cost_usd
    )
    topic = deployment.topics.audit
    with closing(Tail(deployment.kafka, topic)) as tail:
        sender.send([Outgoing(topic, line.audit_id.encode(), sealed(line, tail.tip()))])
    return line.audit_id


def who() -> str:
    """The operating system's word for who runs this command: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
