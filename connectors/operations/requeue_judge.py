"""Judges which dead letters can be requeued, without a write: a dry run and the real run say the same."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from connectors.config.deployment import Deployment
from connectors.operations.accepted_refusals import needs_word, never_comes_back
from connectors.operations.dead_letters import EVENTS, DeadLetter, usage_of
from connectors.operations.usage_log import LogCheck, LogJudgement, caught_up, log_judgements
from connectors.postgres.pool import Database
from schemas.errors import ConfigurationError
from schemas.money import ZERO, add
from schemas.normalised_call import Usage
from schemas.rounding import quantum
from streams.core.metering.matching import MISSING, CopyVerdict

BATCH = 500


@dataclass(slots=True)
class RequeueResult:
    """Numbers of dead letters.

    Fields:
        requeued, dismissed: dead letters that this call has requeued or dismissed.
        known: calls that were counted already. Their dead letters are closed.
        impossible: dead letters that cannot be requeued as they are; `reasons` counts them by reason.
        unaccepted: calls that would be requeued only if the operator accepted their reason by name.
        usd: sum of the requeued amounts, dollars.
        dismissed_maybe_at_lago: those of the dismissed ones that Lago may have, and then bills.
    """

    requeued: int = 0
    dismissed: int = 0
    known: int = 0
    impossible: int = 0
    unaccepted: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    usd: Decimal = ZERO
    dismissed_maybe_at_lago: int = 0

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count dead letters that cannot be requeued as they are."""
        if count:
            self.impossible += count
            self.reasons[reason] = self.reasons.get(reason, 0) + count


class RequeueJudge:
    """Judges dead letters.

    Args:
        database: None = there is no Postgres, so no usage log.
        trusted_us: see `caught_up`.
    """

    def __init__(self, deployment: Deployment, database: Database | None, trusted_us: int | None = None) -> None:
        self._deployment = deployment
        self._database = database
        self._trusted_us = trusted_us
        self._unit = quantum(deployment.policy.cost_decimals)
        self._checked: LogCheck | None = None

    @property
    def checked_us(self) -> int:
        """When the usage log was checked, microseconds since 1970 UTC; 0 = it was not."""
        return 0 if self._checked is None else self._checked.at_us

    async def preview(self, dead_letters: Iterable[DeadLetter], accepted: tuple[str, ...] = ()) -> RequeueResult:
        """Return what `Requeuer.requeue` would return. Raises: as that method, but nothing is fenced."""
        done = RequeueResult()
        for batch in batches(dead_letters):
            if batch[0].kind == EVENTS:
                done.requeued += len(self.events(batch, done))
                continue
            for _, usage, judgement in await self.calls(batch, accepted, done):
                if judgement.sendable:
                    done.requeued += 1
                    done.usd = add(done.usd, usage.cost)
                else:
                    done.known += 1
        return done

    def events(self, batch: Sequence[DeadLetter], done: RequeueResult) -> list[DeadLetter]:
        """Return the events that can be sent again; count the others in `done`."""
        back = [dead_letter for dead_letter in batch if dead_letter.transaction_id]
        done.refuse("malformed", len(batch) - len(back))
        return back

    async def calls(
        self, batch: Sequence[DeadLetter], accepted: tuple[str, ...], done: RequeueResult
    ) -> list[tuple[DeadLetter, Usage, LogJudgement]]:
        """Return the calls that can be sent again or were counted before; count the others in `done`.

        Args:
            accepted: see `Requeuer.requeue`.

        Raises:
            ConfigurationError: there is no Postgres.
            Unavailable: `projection_behind`, or Kafka or Postgres does not answer.
        """
        read: list[tuple[DeadLetter, Usage]] = []
        for dead_letter in batch:
            usage = usage_of(dead_letter.stored, dead_letter.customer, self._unit)
            if needs_word(dead_letter.reason, accepted):
                done.unaccepted += 1
            elif usage is None or never_comes_back(dead_letter.reason):
                done.refuse(dead_letter.reason)
            else:
                read.append((dead_letter, usage))
        judged = []
        for (dead_letter, usage), judgement in zip(read, await self._judgements(read, accepted), strict=True):
            if judgement.refused:
                done.refuse(judgement.refused)
            else:
                judged.append((dead_letter, usage, judgement))
        return judged

    async def _judgements(
        self, read: Sequence[tuple[DeadLetter, Usage]], accepted: tuple[str, ...]
    ) -> Sequence[LogJudgement]:
        """Look up each call in the usage log.

        Without a log an accepted call is requeued unchecked. The meter then recognises it as a duplicate, or rejects it
        as too old.
        """
        if not read:
            return []
        if self._database is None and all(dead_letter.reason in accepted for dead_letter, _ in read):
            return [LogJudgement(CopyVerdict(MISSING))] * len(read)
        if self._database is None:
            raise ConfigurationError(
                "DATABASE_URL", "refused calls come back only after a check against the usage log, which needs Postgres"
            )
        if self._checked is None:
            self._checked = await caught_up(self._deployment, self._database, trusted_us=self._trusted_us)
        usages = [usage for _, usage in read]
        return await log_judgements(self._database, usages, self._checked, self._deployment.policy)


def batches(dead_letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Yield batches of at most `BATCH` dead letters of one kind."""
    batch: list[DeadLetter] = []
    for dead_letter in dead_letters:
        if batch and (len(batch) == BATCH or batch[0].kind != dead_letter.kind):
            yield batch
            batch = []
        batch.append(dead_letter)
    if batch:
        yield batch
