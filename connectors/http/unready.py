"""Says in words why no record can be stored now, by the reason of `/health/ready`."""

from typing import Final

_AWAY: Final = "Kafka does not answer at KAFKA_BOOTSTRAP_SERVERS"
#: By reason (docs/errors.md).
SENTENCES: Final = {
    "topics_unchecked": f"{_AWAY}, or has not been checked since the start; calls are not accepted until it answers",
    "kafka_unavailable": f"{_AWAY}; calls are not accepted until it does",
    "kafka_timeout": "Kafka does not confirm records in time: look at Kafka",
    "kafka_queue_full": "Kafka takes records more slowly than they come: look at Kafka",
    "kafka_fatal": "the producer cannot continue: restart this process",
    "kafka_closed": "the producer is closed: restart this process, unless it is stopping",
    "kafka_refused": "Kafka refuses records: run `meterbridge topics check`",
    "kafka_refuses_time": "Kafka refuses the time of this machine: set its clock, or run `meterbridge topics check`",
    "coordinator_awaited": "Kafka's transaction coordinator has not answered yet, or the mappings are being read: wait. If it lasts, "
    "see whether Kafka can create __transaction_state",
    "spool_full": f"{_AWAY}, and the disk or SPOOL_MAX_BYTES is full: bring Kafka back",
    "spool_failed": "the disk of SPOOL_PATH fails: look at the disk and its rights",
}


def unready(reason: str) -> str:
    """Return the sentence for a reason."""
    return SENTENCES.get(reason, "no record can be stored now: docs/errors.md has the next step for the reason")
