"""Reads the earlier numbers of raw partitions from the audit lines of `meterbridge topics expand`."""

import msgspec

from connectors.config.deployment import Deployment
from connectors.kafka.topic_scan import offset_range_of, scan, whole_number
from schemas.decoding import decoder
from schemas.records import AuditRecord

#: The action of an audit line that has the number of partitions before and after.
EXPANDED = "topics.expand"
_audit = decoder(AuditRecord)


def past_counts(deployment: Deployment) -> list[int]:
    """Return the numbers of partitions that the raw topic has had, as far as the audit log goes back. The present
    number is last.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
    """
    counts = {deployment.partitions}
    for message in scan(deployment.kafka, offset_range_of(deployment.kafka, deployment.topics.audit)):
        try:
            line = _audit(message.value() or b"")
        except msgspec.DecodeError:
            continue
        if line.action != EXPANDED:
            continue
        before, after = (whole_number(line.target.get(name, "")) or 0 for name in ("from", "to"))
        if 0 < before <= after <= deployment.partitions:
            counts |= {before, after}
    return sorted(counts)


def grown_from(counts: list[int], partition: int) -> int:
    """Return the number of partitions when the ledger of `partition` was begun; 0 = the present number.

    Args:
        counts: the result of `past_counts`.
    """
    begun_with = min(count for count in counts if count > partition)
    return begun_with if begun_with < counts[-1] else 0


def ancestors(counts: list[int], partition: int) -> list[int]:
    """Return the partitions from which the keys of `partition` came."""
    return sorted({partition % count for count in counts if count <= partition})
