"""What the calls of a chunk are known by: before it, within it, and after it.

A call is remembered by its identity for the horizon. A job is remembered by its own for `JOB_HORIZON_US`, beside the
calls: jobs are few, and told of for weeks (ADR 0016).
"""

from collections.abc import Sequence
from itertools import islice

from schemas.ledger import Job
from schemas.moments import HOUR_US
from schemas.usage import Usage
from streams.core.metering.known_identities import COSTLESS, NEVER, SETTLED, UNTOLD, fingerprint, pack
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes

HOUR_MS = 3_600_000
#: A job is remembered for as long after it was last told of, by the partition's clock.
JOB_HORIZON_US = 35 * 24 * HOUR_US
#: A job that is told of again is written down again no more often than this.
_RENEW_HOURS = 24
_JOB_HOURS = JOB_HORIZON_US // HOUR_US + _RENEW_HOURS
#: Keys deleted from the changelog a step, of each kind: bounds the transaction.
_DROPS = 500


class ChunkMemory:
    """One chunk's view of the books; `new` holds the tags of the identities that the chunk settles or counts.

    Fields:
        known: for each call, in order, the tag of its identity in the books.
        new: tags by identity; the fold reads and writes it directly, for that is the hot path.
    """

    def __init__(self, books: LedgerState, usages: Sequence[Usage]) -> None:
        self._books = books
        self.new: dict[bytes, int] = {}
        self.jobs: dict[bytes, Job | None] = {}
        identities = [usage.identity for usage in usages]
        marks = [usage.job for usage in usages if usage.job and usage.job is not usage.identity]
        self.known = books.seen.tags(identities + marks)
        self._stored = {mark for mark, tag in zip(marks, self.known[len(usages) :], strict=True) if tag != NEVER}

    def also(self, usage: Usage, tag: int) -> int:
        """What is known of a call that has twins or a job, of which its own identity says `tag`."""
        tags = [tag]
        if usage.twins:
            found = self._books.seen.tags(usage.twins)
            tags += [self.new.get(twin, known) for twin, known in zip(usage.twins, found, strict=True)]
            self._stored.update(twin for twin, known in zip(usage.twins, found, strict=True) if known != NEVER)
        job = self._job(usage.job) if usage.job else None
        # An answer that is read again is a call of its own: it is known when a read of it was billed.
        if job is not None and (usage.job is usage.identity or job.tag >= SETTLED):
            tags.append(job.tag)
        return _strongest(tags)

    def reopen(self, identity: bytes) -> None:
        """A costless identity of the books is counted again, now with a cost."""
        self._stored.add(identity)

    def told_again(self, usage: Usage, tag: int, clock_ms: int) -> None:
        """A repeat of a job keeps its memory alive."""
        hour = clock_ms // HOUR_MS
        job = self._job(usage.job)
        if job is None or hour - job.hour >= _RENEW_HOURS:
            self.jobs[usage.job] = Job(hour, tag)

    def keep(self, usage: Usage, tag: int, clock_ms: int) -> None:
        """Remember a call with twins or a job under `tag`, beside its own identity."""
        self.new.update(dict.fromkeys(usage.twins, tag))
        if usage.job is usage.identity:
            self.new.pop(usage.identity, None)
            self.jobs[usage.job] = Job(clock_ms // HOUR_MS, tag)
        elif usage.job and tag >= SETTLED:
            self.new[usage.job] = tag
            if self._job(usage.job) is not None:
                self.jobs[usage.job] = Job(clock_ms // HOUR_MS, tag)

    def write(self, changes: Changes, first: int, horizon_us: int, newest_hour: int) -> None:
        """Store what is new under `newest_hour` and `first`; forget what is beyond its horizon.

        Args:
            newest_hour: of the newest record or end, hours since 1970 UTC. No call ends later than ten minutes after its
                record or the clock, so what is forgotten is beyond the horizon, however far the clock stays behind.
        """
        books, position = self._books, changes.position
        hour = position.clock_ms // HOUR_MS
        again = {identity: self.new.pop(identity) for identity in self._stored & self.new.keys()}
        changes.seen, changes.settled = pack(self.new), pack(again)
        changes.seen_hour, changes.seen_first = newest_hour, first
        oldest = hour - horizon_us // HOUR_US
        position.dropped_hour = max(oldest, position.dropped_hour)
        for past, chunks in books.seen_chunks.items():
            if past < oldest and len(changes.dropped) < _DROPS:
                changes.dropped.extend((past, *chunk) for chunk in islice(chunks.items(), _DROPS))
        changes.jobs = self.jobs
        for identity, job in islice(books.jobs.items(), _DROPS):
            if job.hour >= hour - _JOB_HOURS:
                break  # they lie in order of their hours
            changes.jobs.setdefault(identity, None)

    def _job(self, identity: bytes) -> Job | None:
        return self.jobs.get(identity) or self._books.jobs.get(identity)


def tag_of(usage: Usage, *, billed: bool) -> int:
    """What a counted call is remembered by: without a cost, and not billed, it leaves the way open for its priced copy."""
    return fingerprint(usage.cost) if billed or usage.cost else COSTLESS


def _strongest(tags: Sequence[int]) -> int:
    """A cost outweighs a word without one, which outweighs a count without a cost."""
    highest = max(tags)
    return UNTOLD if highest == COSTLESS and UNTOLD in tags else highest
