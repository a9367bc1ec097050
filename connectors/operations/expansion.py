"""Adds partitions to the raw topic and to the topics that must have as many, so that no call is lost or billed twice.

The order of the steps makes a crash at any point safe: the changelog grows, the ledgers move one after the other, then
the other topics grow, the raw topic last. Until the last step is done, no worker starts (docs/adr/0042).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from aiokafka.errors import ProducerFenced

from connectors.config.deployment import Deployment
from connectors.config.roles import ROLES
from connectors.kafka.growth import groups_with_members, grow, partition_counts
from connectors.operations.audit_record import audited
from connectors.operations.ledger_init import place_of
from connectors.operations.ledger_totals import positions_of
from connectors.operations.past_counts import EXPANDED
from connectors.operations.sender import CommandProducer
from connectors.operations.unread import unread
from schemas.errors import Rejected, TopicProblem, Unavailable
from schemas.topics import CATALOGUE, Partitions
from streams.state.ledger_expand import Expanded, expand

#: The roles that must not run. They would miss the new partitions, or write to a ledger that is being moved.
#: The longest time that a record may have waited in the raw topic. An older one might be forwarded to a new ledger too
#: late.
MOST_BEHIND_S = 3_600.0


@dataclass(frozen=True, slots=True)
class ExpansionPlan:
    """The steps of an expansion.

    Fields:
        old: number of partitions that the ledgers have, or had before an interrupted run.
        grows: topics with fewer partitions than `new`, the raw topic last.
        moves: whether a ledger still has the old number.
    """

    old: int
    new: int
    grows: tuple[str, ...]
    moves: bool

    @property
    def needed(self) -> bool:
        """Whether any step is left."""
        return self.moves or bool(self.grows)


def plan_expansion(deployment: Deployment, partitions: int) -> ExpansionPlan:
    """Make the plan, and change nothing.

    Raises:
        Rejected: `would_shrink`, `workers_running`. Unavailable: `raw_behind`, or the broker does not answer.
        TopicProblem: `topic_missing`; `partitions_changed`: a topic or a ledger has a number of partitions that no run
            produces.
    """
    raw = deployment.topics.raw
    names = [deployment.prefix + topic.name for topic in CATALOGUE if topic.partitions is Partitions.LIKE_RAW]
    counts = partition_counts(deployment.kafka, sorted(names, key=lambda name: name == raw))
    ledgers = {position.partitions for position in positions_of(deployment).values()}
    old = min({*ledgers, *counts.values()})
    if partitions < max({*ledgers, *counts.values()}):
        raise Rejected("would_shrink", f"there are {max(counts.values())} partitions, and a number never shrinks")
    if strange := {*ledgers, *counts.values()} - {old, partitions}:
        raise TopicProblem(
            "partitions_changed", f"topics have {old} and {min(strange)} partitions: neither is the goal"
        )
    grows = tuple(name for name, count in counts.items() if count < partitions)
    planned = ExpansionPlan(old, partitions, grows, bool(ledgers - {partitions}))
    if planned.needed:
        _check_stopped(deployment)
        if partitions not in ledgers:
            _check_read(deployment)
    return planned


async def carry_out(
    deployment: Deployment, planned: ExpansionPlan, why: str, moved: Callable[[], None]
) -> tuple[str, list[Expanded]]:
    """Carry out the plan; return the audit line's id and the result for each ledger. `moved` is called after each
    ledger.

    Raises:
        Rejected: `ledger_moved`: a worker was started meanwhile. TopicProblem, LedgerBroken: a ledger cannot be moved.
        Unavailable: the broker stopped answering. After any of these errors, a repeat continues where this run stopped.
    """
    kafka, old, new = deployment.kafka, planned.old, planned.new
    target = {"from": str(old), "to": str(new)}
    audit_id = audited(deployment, CommandProducer(kafka), EXPANDED, target, reason=why, count=old)
    grow(kafka, {deployment.topics.changelog: new})
    place = replace(place_of(deployment), partitions=old)
    ledgers = []
    for partition in range(old):
        try:
            ledgers.append(await expand(place, partition, new))
        except ProducerFenced:
            raise Rejected("ledger_moved", "a worker was started meanwhile: stop it, and repeat") from None
        moved()
    for name in planned.grows:
        grow(kafka, {name: new})
    return audit_id, ledgers


def _check_stopped(deployment: Deployment) -> None:
    groups = {deployment.kafka_id(role): role for role in ROLES}
    if alive := groups_with_members(deployment.kafka, groups):
        roles = ", ".join(groups[name] for name in alive)
        raise Rejected("workers_running", f"stop these roles first, a killed one counts for 15 s: {roles}")


def _check_read(deployment: Deployment) -> None:
    waits_s = unread(deployment)["raw"].oldest_s
    if waits_s > MOST_BEHIND_S:
        raise Unavailable("raw_behind", f"the oldest unread call is {waits_s / 3600:.1f} h old: let the meter catch up")
