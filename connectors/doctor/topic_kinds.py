"""Severity, cause and fix of the doctor's findings about the topics in Kafka."""

from typing import Final

#: The severities are values of `connectors.doctor.catalogue.Severity`.
TOPIC_TEXTS: Final = {
    "topic_loses_money": (
        "money_lost",
        "A topic is missing, or with its retention, compaction or replication usage is lost before it is billed. No role starts with it.",
        "The command in the finding; `meterbridge topics create` for what is missing.",
    ),
    "topic_setting": (
        "degraded",
        "A topic differs from the catalogue in a setting that matters when another fault occurs.",
        "The command in the finding.",
    ),
}
