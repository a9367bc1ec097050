"""The access-control lists (ACLs) of each role in Kafka. Each role has a principal of its own with no other rights.

Once its brokers have an authorizer, Kafka denies what no ACL allows
(https://kafka.apache.org/documentation/#security_authz). Names follow `TOPIC_PREFIX` and `DEPLOYMENT_NAME`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from connectors.config.roles import ALWAYS
from connectors.config.roles import ROLES as WORKERS
from schemas.topics import TopicNames

TOPIC, GROUP, TRANSACTIONAL_ID, CLUSTER = "topic", "group", "transactional-id", "cluster"
#: Kafka's name of its one cluster.
CLUSTER_NAME: Final = "kafka-cluster"
#: Operations of `kafka-acls.sh --operation`. Read and Write imply Describe.
READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = "Read", "Write", "Describe", "DescribeConfigs"
CREATE, ALTER, ALTER_CONFIGS = "Create", "Alter", "AlterConfigs"

_PROJECTED: Final = ("enriched", "events", "receipts", "rejected", "customers", "orgs", "audit", "deliveries")
#: The topics that sink and retry write for each event.
_OUTCOMES: Final = ("retry", "dlq", "receipts", "deliveries")
#: The topics that each role reads, by their fields in `TopicNames`.
READS: Final[Mapping[str, tuple[str, ...]]] = {
    "ingress": (),
    "meter": ("raw", "customers", "orgs", "changelog", "rates"),
    "sink": ("events", "orgs"),
    "retry": ("retry", "orgs"),
    "project": ("raw", *_PROJECTED),
    # A line of the audit log has the hash of the line before it, so its writers also read the topic (ADR 0030).
    "api": ("raw", "customers", "orgs", "receipts", "rejected", "dlq", "events", "retry", "enriched", "audit"),
}
#: The topics that each role writes. Each worker reports halted partitions in `deliveries` (ADR 0054).
WRITES: Final[Mapping[str, tuple[str, ...]]] = {
    "ingress": ("raw", "rejected"),
    # Records of a grown raw topic are forwarded to the partition of their key (ADR 0042).
    "meter": ("raw", "changelog", "enriched", "rejected", "events", "receipts", "deliveries"),
    "sink": _OUTCOMES,
    "retry": _OUTCOMES,
    # Late calls are requeued into raw; an event posted after its subscription's end is billed again (ADR 0024, 0027).
    "project": ("raw", "rejected", "audit", "events", "receipts", "deliveries"),
    # Recorded usage, mappings and orgs, requeued dead letters, and events that Lago reports later as unbillable.
    "api": ("raw", "customers", "orgs", "audit", "deliveries", "receipts", "retry", "dlq", "rejected"),
}
#: The account for commands such as `meterbridge topics create`.
OPERATOR: Final = "operator"
ROLES: Final = (*READS, OPERATOR)
#: The placeholder for the role in the pattern of principals.
ROLE_MARK: Final = "{role}"
#: The consumer group of commands. No command joins it.
_COMMANDS_GROUP: Final = "meterbridge-operations"


@dataclass(frozen=True, slots=True)
class Acl:
    """One operation that one principal may do on a resource.

    Fields:
        role: one of `ROLES`.
        resource: `TOPIC`, `GROUP`, `TRANSACTIONAL_ID` or `CLUSTER`.
        name: name of the resource, or the beginning of names if `prefixed`.
        operation: Kafka's name of the operation.
    """

    role: str
    resource: str
    name: str
    operation: str
    prefixed: bool = False


def acls(names: TopicNames, prefix: str, deployment: str) -> Iterator[Acl]:
    """Return all ACLs of the roles and of the operator's account.

    Args:
        names: the topics, with their prefix.
        prefix: `TOPIC_PREFIX`.
        deployment: `DEPLOYMENT_NAME`.
    """
    mine = f"{prefix}{deployment}-"
    every = [getattr(names, field.name) for field in fields(names)]
    for role in READS:
        reads = {getattr(names, name) for name in READS[role]}
        writes = {getattr(names, name) for name in WRITES[role]}
        for topic in every:
            # At its start, each process compares every topic with the catalogue.
            yield from (Acl(role, TOPIC, topic, operation) for operation in (DESCRIBE, DESCRIBE_CONFIGS))
            if topic in reads:
                yield Acl(role, TOPIC, topic, READ)
            if topic in writes:
                yield Acl(role, TOPIC, topic, WRITE)
    for role in WORKERS:
        yield Acl(role, GROUP, f"{mine}{role}", READ)
    for role in ALWAYS:
        yield Acl(role, TRANSACTIONAL_ID, f"{mine}{role}-", WRITE, prefixed=True)
    for role in ("sink", "retry"):  # a group for each further Lago organisation (ADR 0044)
        yield Acl(role, GROUP, f"{mine}{role}-", READ, prefixed=True)
    yield Acl("meter", TRANSACTIONAL_ID, f"{names.changelog}-begin-", WRITE, prefixed=True)
    yield Acl("project", TRANSACTIONAL_ID, f"{mine}rebill", WRITE)
    # Reads the committed offsets of each role, for /webhooks/stats and to find out whether a call has been counted.
    for role in ("project", "api"):
        yield Acl(role, GROUP, mine, DESCRIBE, prefixed=True)
        yield Acl(role, GROUP, _COMMANDS_GROUP, READ)
    for topic in (names.customers, names.orgs):
        yield Acl("api", TRANSACTIONAL_ID, f"{topic}-writer", WRITE, prefixed=True)
    yield Acl("api", TRANSACTIONAL_ID, f"{mine}desk", WRITE)
    yield Acl("project", TRANSACTIONAL_ID, f"{mine}late-", WRITE, prefixed=True)
    yield from _operators(every, mine, names)


def _operators(every: Sequence[str], mine: str, names: TopicNames) -> Iterator[Acl]:
    """Return the ACLs of commands: they may do what the roles do, create topics, add partitions (Alter), and read all
    ACLs for the doctor.
    """
    yield Acl(OPERATOR, CLUSTER, CLUSTER_NAME, DESCRIBE)
    for topic in every:
        for operation in (READ, WRITE, CREATE, ALTER, DESCRIBE_CONFIGS, ALTER_CONFIGS):
            yield Acl(OPERATOR, TOPIC, topic, operation)
    yield Acl(OPERATOR, GROUP, mine, READ, prefixed=True)
    yield Acl(OPERATOR, GROUP, _COMMANDS_GROUP, READ)
    yield Acl(OPERATOR, TRANSACTIONAL_ID, mine, WRITE, prefixed=True)
    for topic in (names.customers, names.orgs, names.changelog):
        yield Acl(OPERATOR, TRANSACTIONAL_ID, f"{topic}-", WRITE, prefixed=True)


def principal_of(pattern: str, role: str) -> str:
    """Return the principal of a role: `pattern` with the role instead of `{role}`, or with the role at its end."""
    return pattern.replace(ROLE_MARK, role) if ROLE_MARK in pattern else pattern + role
