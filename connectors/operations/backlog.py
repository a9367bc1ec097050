"""Says which records a role has not read yet, and whether the role runs: without them a report is not complete."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from connectors.config.deployment import Deployment
from connectors.kafka.growth import groups_named, groups_with_members
from connectors.kafka.topic_scan import OffsetRange, offset_range_of
from connectors.operations.unread import Unread, has_read, records_after, unread_by
from connectors.operations.usage_log import placed, records_in, unprojected
from connectors.postgres.pool import Database
from schemas.plurals import numbered

#: A running role is behind if a record has waited longer, seconds: as the alarms MeterbridgeMeterBehind and
#: MeterbridgeProjectorBehind.
BEHIND_S = 600.0
#: By role: a record that it reads, what is missing until then, and the role's process.
_WORDS = {"meter": ("call", "not counted", "meter"), "project": ("record", "not in Postgres", "projector")}
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
#: How many other deployments a sentence names.
_MOST_NAMES = 3

_NONE = Unread(0, 0.0)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Records of a topic that a role has not read.

    Fields:
        runs: whether the role runs; a killed process counts until its session times out. True if there are no records.
        renamed: a sentence if the role does not run, and has read the topic under another `DEPLOYMENT_NAME` only.
    """

    topic: str
    role: str
    unread: Unread = _NONE
    runs: bool = True
    renamed: str = ""

    @property
    def is_stuck(self) -> bool:
        """Whether the records wait for an operator: no process reads them, or the oldest has waited for `BEHIND_S`."""
        return not self.runs or self.unread.oldest_s > BEHIND_S

    @property
    def sentence(self) -> str:
        """Say how many records wait, for how long, and whether the role runs; `""` = there are none."""
        if not self.unread.records:
            return ""
        noun, missing, process = _WORDS[self.role]
        verb = "is" if self.unread.records == 1 else "are"
        next_step = self.renamed or f"`meterbridge worker --only {self.role}`"
        stopped = "" if self.runs else f", and no {process} runs: {next_step}"
        many = f"{numbered(self.unread.records, noun)} in {self.topic} {verb} {missing} yet"
        return f"{many}, the oldest is {age(self.unread.oldest_s)} old{stopped}"

    def as_object(self) -> dict[str, object]:
        """Return the same for programs."""
        unread = self.unread
        return {"records": unread.records, "oldest_seconds": round(unread.oldest_s, 1), "role_runs": self.runs}


def age(seconds: float) -> str:
    """Return a duration in its largest unit, for people: `40 s`, `12 min`, `3.5 h`, `2.1 d`."""
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.1f} d"


def uncounted(deployment: Deployment, raw: OffsetRange, counted_to: Mapping[int, int] | None = None) -> Backlog:
    """Return the calls of `raw` that no ledger has counted. The function blocks.

    Args:
        counted_to: the first offset that is not in the sums that a report has read, by partition; None = the committed
            offsets count.

    Raises:
        Unavailable: the broker does not answer.
    """
    if counted_to is None:
        behind = unread_by(deployment.kafka, deployment.kafka_id("meter"), raw)
    else:
        behind = unprojected(raw, counted_to)
    return _backlog(deployment, "meter", [behind])[0]


def uncounted_now(deployment: Deployment) -> Backlog:
    """Return the stored calls that no ledger has counted: they may still enter a list. The function blocks.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
    """
    return uncounted(deployment, offset_range_of(deployment.kafka, deployment.topics.raw))


async def unread_for_explaining(deployment: Deployment, database: Database) -> list[Backlog]:
    """Return what the meter and the projector have not read: a call or an event in it is not in the tables yet.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`; or Postgres does not answer.
    """
    return [await asyncio.to_thread(uncounted_now, deployment), *await not_projected(deployment, database)]


async def not_projected(deployment: Deployment, database: Database) -> list[Backlog]:
    """Return what the projector has not written into Postgres of calls, refused calls, events and their states.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`; or Postgres does not answer.
    """
    topics = deployment.topics
    behind = []
    for topic in (topics.enriched, topics.rejected, topics.events, topics.receipts):
        whole = await asyncio.to_thread(offset_range_of, deployment.kafka, topic)
        behind.append(unprojected(whole, await placed(database, topic)))
    return await asyncio.to_thread(_backlog, deployment, "project", behind)


def _backlog(deployment: Deployment, role: str, behind: Iterable[OffsetRange]) -> list[Backlog]:
    found = [(stretch, _unread(deployment, stretch)) for stretch in behind]
    if not any(unread.records for _, unread in found):
        return [Backlog(stretch.topic, role) for stretch, _ in found]
    if groups_with_members(deployment.kafka, [deployment.kafka_id(role)]):
        return [Backlog(stretch.topic, role, unread) for stretch, unread in found]
    return [
        Backlog(stretch.topic, role, unread, runs=False, renamed=_renamed(deployment, role, stretch))
        if unread.records
        else Backlog(stretch.topic, role)
        for stretch, unread in found
    ]


def _renamed(deployment: Deployment, role: str, stretch: OffsetRange) -> str:
    """Return a sentence if the role has read the topic, but never under this `DEPLOYMENT_NAME`; otherwise `""`."""
    own, ending = deployment.kafka_id(role), f"-{role}"
    if has_read(deployment.kafka, own, stretch):
        return ""
    # A group of another TOPIC_PREFIX may begin so too, and reads other topics.
    groups = [
        group
        for group in groups_named(deployment.kafka, deployment.prefix, ending)
        if group != own and has_read(deployment.kafka, group, stretch)
    ]
    names = [f"DEPLOYMENT_NAME={group.removeprefix(deployment.prefix).removesuffix(ending)}" for group in groups]
    if not names:
        return ""
    return f"but one has read it under {' or '.join(names[:_MOST_NAMES])}, while DEPLOYMENT_NAME is {deployment.name}: correct it"


def _unread(deployment: Deployment, stretch: OffsetRange) -> Unread:
    """Return the unread records without the markers of transactions, of which people know nothing."""
    found = records_after(deployment.kafka, stretch)
    return found._replace(records=records_in(deployment.kafka, stretch)) if found.records else found
