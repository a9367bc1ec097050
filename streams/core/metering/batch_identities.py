"""The known identities for the calls of a batch: before, within and after the batch.

A call is remembered by its identity for the dedupe retention. A job has an identity of its own. It is remembered for
`JOB_HORIZON_US`, because jobs are few and LiteLLM reports them for weeks (ADR 0016).
"""

from collections.abc import Sequence
from itertools import islice

from schemas.ledger import Attempts, Job
from schemas.moments import HOUR_US
from schemas.normalised_call import Usage
from streams.core.metering.decisions import PRICEABLE, UNBILLED
from streams.core.metering.known_identities import COSTLESS, NEVER, SETTLED, UNTOLD, fingerprint, pack_identities
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes

HOUR_MS = 3_600_000
#: How long a job is remembered after its last report, by the partition clock.
JOB_HORIZON_US = 35 * 24 * HOUR_US
#: A repeated report of a job is written to the changelog at most once in this time.
_RENEW_HOURS = 24
_JOB_HOURS = JOB_HORIZON_US // HOUR_US + _RENEW_HOURS
#: The most keys of each kind that one step deletes from the changelog; this bounds the transaction.
_DROPS = 500


class BatchIdentities:
    """The identities of one batch, in addition to those of the ledger.

    Fields:
        known: the tag of each call's identity in the ledger, in the order of the calls.
        new: tags of the identities that the batch counts or settles. The fold accesses it directly, because it is the
            hot path.
    """

    def __init__(self, ledger: LedgerState, usages: Sequence[Usage]) -> None:
        self._state = ledger
        self.new: dict[bytes, int] = {}
        self.jobs: dict[bytes, Job | None] = {}
        identities = [usage.identity for usage in usages]
        others = [usage.job for usage in usages if usage.job and usage.job is not usage.identity]
        others += [twin for usage in usages if usage.twins is not None for twins in usage.twins for twin in twins]
        self.known = ledger.seen.tags(identities + others)
        self._others = dict(zip(others, self.known[len(usages) :], strict=True))
        self._stored = {other for other, tag in self._others.items() if tag != NEVER}

    def also(self, usage: Usage, tag: int) -> int:
        """Return the strongest tag of a call that has twins or a job; `tag` is the tag of its own identity."""
        tags = [tag]
        if usage.twins is not None:
            tags += [self._tag(twin) for twin in usage.twins.sought]
        job = self._job(usage.job) if usage.job else None
        # The answer of a response can be read again. Such a read is a call of its own, so it counts as known only if
        # another read was billed.
        if job is not None and (usage.job is usage.identity or job.tag >= SETTLED):
            tags.append(job.tag)
        return strongest(tags)

    def reopen(self, identity: bytes) -> None:
        """Register that an identity without a cost in the ledger is counted again with a cost."""
        self._stored.add(identity)

    def told_again(self, usage: Usage, tag: int, clock_ms: int) -> None:
        """Renew the memory of a job that was reported again."""
        hour = clock_ms // HOUR_MS
        job = self._job(usage.job)
        if job is None or hour - job.hour >= _RENEW_HOURS:
            self.jobs[usage.job] = Job(hour, tag)

    def keep(self, usage: Usage, tag: int, clock_ms: int) -> None:
        """Remember a call with twins or a job under `tag`, beside its own identity.

        Another call may be remembered under the same twin. The stronger tag stays.
        """
        if usage.twins is not None:
            for twin in usage.twins.kept:
                self.new[twin] = strongest((tag, self._tag(twin)))
        if usage.job is usage.identity:
            self.new.pop(usage.identity, None)
            self.jobs[usage.job] = Job(clock_ms // HOUR_MS, tag)
        elif usage.job and tag >= SETTLED:
            self.new[usage.job] = tag
            if self._job(usage.job) is not None:
                self.jobs[usage.job] = Job(clock_ms // HOUR_MS, tag)

    def attempts(self, mark: bytes) -> Attempts | None:
        """Return what is known of the failed attempts of a call; None = there were none."""
        job = self._job(mark) if mark else None
        return None if job is None else job.attempts

    def keep_attempts(self, mark: bytes, attempts: Attempts, clock_ms: int) -> None:
        """Remember the failed attempts of a call as long as a job."""
        self.jobs[mark] = Job(clock_ms // HOUR_MS, SETTLED, attempts)

    def write(self, changes: Changes, first: int, dedupe_retention_us: int, newest_hour: int) -> None:
        """Store the new identities under `newest_hour` and `first`; forget what is beyond its dedupe retention.

        Args:
            newest_hour: hour of the newest record or end, hours since 1970 UTC. A call ends at most ten minutes after
                its record or the clock. So an identity is never forgotten within the dedupe retention, even if the
                clock is slow.
        """
        ledger, position = self._state, changes.position
        hour = position.clock_ms // HOUR_MS
        again = {identity: self.new.pop(identity) for identity in self._stored & self.new.keys()}
        changes.seen, changes.settled = pack_identities(self.new), pack_identities(again)
        changes.seen_hour, changes.seen_first = newest_hour, first
        oldest = hour - dedupe_retention_us // HOUR_US
        position.dropped_hour = max(oldest, position.dropped_hour)
        for past, blocks in ledger.seen_blocks.items():
            if past < oldest and len(changes.dropped) < _DROPS:
                changes.dropped.extend((past, *block) for block in islice(blocks.items(), _DROPS))
        changes.jobs = self.jobs
        for identity, job in islice(ledger.jobs.items(), _DROPS):
            if job.hour >= hour - _JOB_HOURS:
                break  # jobs are ordered by hour
            changes.jobs.setdefault(identity, None)

    def _tag(self, twin: bytes) -> int:
        return self.new.get(twin, self._others[twin])

    def _job(self, identity: bytes) -> Job | None:
        return self.jobs.get(identity) or self._state.jobs.get(identity)


def tag_of(usage: Usage, decision: str) -> int:
    """Return the tag under which a counted call is remembered. A call without a cost that is not billed stays open for
    a copy with a cost, unless a policy excludes it. The report of a job always stays open: the cost comes with a later one.
    """
    if usage.cost or decision not in UNBILLED:
        return fingerprint(usage.cost)
    return COSTLESS if decision in PRICEABLE or usage.job is usage.identity else UNTOLD


def strongest(tags: Sequence[int]) -> int:
    """Return the highest tag; but `UNTOLD` overrides `COSTLESS`, because it excludes copies."""
    highest = max(tags)
    return UNTOLD if highest == COSTLESS and UNTOLD in tags else highest
