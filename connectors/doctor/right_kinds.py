"""Cause and fix of the doctor's findings about the roles' accounts in Kafka."""

from typing import Final

#: The finding that stops a role's work.
MISSING_TEXTS: Final = (
    "The account of a role lacks a right in Kafka that its work needs. What then waits longer than a topic keeps it is lost.",
    "`meterbridge topics create --acls` with an administrator's account, or the line for it of `meterbridge topics acls`.",
)
#: Findings that stop no work.
OTHER_TEXTS: Final = {
    "kafka_right_not_needed": (
        "The account of a role may do more in Kafka than the role's work needs. A person who steals the account can do it.",
        "`meterbridge topics create --acls --remove-extra` with an administrator's account; `--dry-run` shows first what it removes.",
    ),
    "kafka_rights_unread": (
        "The doctor's account may not read Kafka's access-control lists, so the rights of the roles were not checked.",
        "Run the doctor with the operator's account, which may (Describe on the cluster).",
    ),
}
