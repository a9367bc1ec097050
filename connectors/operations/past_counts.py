"""How many partitions the raw topic has had, from the audit lines of `meterbridge topics expand`."""

import msgspec

from connectors.config.deployment import Deployment
from connectors.kafka.topic_scan import offset_range_of, scan
from schemas.decoding import decoder
from schemas.records import AuditRecord

#: The action of an audit line that names the numbers before and after.
EXPANDED = "topics.expand"
_audit = decoder(AuditRecord)


def past_counts(deployment: Deployment) -> list[int]:
    """The numbers of partitions that the raw topic has had, as far as the audit log goes back; today's is last.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
    """
    counts = {deployment.partitions}
    for message in scan(deployment.kafka, offset_range_of(deployment.kafka, deployment.topics.audit)):
        try:
            line = _audit(message.value() or b"")
        except msgspec.DecodeError:
            continue
        if line.action == EXPANDED and int(line.target["to"]) <= deployment.partitions:
            counts |= {int(line.target["from"]), int(line.target["to"])}
    return sorted(counts)


def grown_from(counts: list[int], partition: int) -> int:
    """The number of partitions when the ledger of `partition` was begun; 0 = today's.

    Args:
        counts: as `past_counts` gives them.
    """
    begun_with = min(count for count in counts if count > partition)
    return begun_with if begun_with < counts[-1] else 0


def ancestors(counts: list[int], partition: int) -> list[int]:
    """The partitions that `partition` grew out of."""
    return sorted({partition % count for count in counts if count <= partition})
