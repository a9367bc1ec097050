"""Checks the access-control lists of the roles' accounts in Kafka (connectors/kafka/acls.py)."""

import asyncio
from collections.abc import Iterator

from connectors.config.connections import kafka_connection
from connectors.config.settings import Settings
from connectors.doctor.catalogue import Finding
from connectors.kafka.acls import acls
from connectors.kafka.rights import Right, compared, lacking, rights_of
from connectors.kafka.rights_on_broker import stored_rights
from schemas.errors import TopicProblem
from schemas.topics import TopicNames

_ANSWER_S = 5.0


async def judge_rights(own: Settings, principal: str) -> tuple[Finding, ...] | None:
    """Return a finding for each right that a role's account lacks, and for each right that it does not need.

    A role whose account has no list at all is left out: its processes use another account.

    Args:
        principal: how Kafka names the accounts (`principal_of`).

    Returns:
        None = Kafka has no lists: it has no authorizer, or the processes use an administrator's account.

    Raises:
        Unavailable: Kafka does not answer.
    """
    try:
        stored = await asyncio.to_thread(stored_rights, kafka_connection(own), _ANSWER_S)
    except TopicProblem as error:
        return (Finding("kafka_rights_unread", error.detail),)
    if not stored:
        return None
    names = TopicNames.with_prefix(own.topic_prefix)
    wanted = rights_of(acls(names, own.topic_prefix, own.deployment_name), principal)
    named = {right.principal for right in stored}
    missing = lacking([right for right in wanted if right.principal in named], stored)
    # A deployment with another prefix may share the accounts, so lists about other names belong to it.
    ours = {right.name for right in wanted}
    extra = [right for right in compared(wanted, stored, principal).extra if not right.denied and right.name in ours]
    return (*_findings(missing, "kafka_right_missing", "may not"), *_findings(extra, "kafka_right_not_needed", "may"))


def _findings(rights: list[Right], code: str, verb: str) -> Iterator[Finding]:
    for right in rights:
        yield Finding(code, f"{right.principal} {verb} {right.sentence()}.")
