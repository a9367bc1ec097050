"""Requeues dead letters for requests of the management API."""

import asyncio

from connectors.config.deployment import Deployment
from connectors.operations.dead_letter_reasons import unknown_reason
from connectors.operations.dead_letters import BOTH, EVENTS, DeadLetter, Filters, found_letters
from connectors.operations.requeue import requeuer
from connectors.operations.requeue_judge import RequeueJudge, RequeueResult
from connectors.operations.sender import CommandProducer
from connectors.postgres.pool import Database
from schemas.errors import Rejected


class DeadLetterService:
    """Requeues dead letters in one process.

    Args:
        database: None = there is no Postgres. Calls that were rejected are then not requeued.
    """

    def __init__(self, deployment: Deployment, database: Database | None) -> None:
        self._deployment = deployment
        self._database = database

    async def requeue(
        self, kind: str, filters: Filters, limit: int, why: str, actor: str, accept: str = "", *, dry_run: bool
    ) -> tuple[RequeueResult, int]:
        """Requeue at most `limit` dead letters under one audit line. A dry run says what would happen, and
        writes nothing.

        Returns:
            The result, and how many dead letters the filters matched.

        Raises:
            Rejected: `unknown_reason`: no dead letter can have this reason; the detail suggests a similar one.
            Unavailable: Kafka or Postgres does not answer.
            ConfigurationError: the deployment has no Postgres, and rejected calls are asked for.
        """
        if kind == BOTH and self._database is None:
            kind = EVENTS  # refused calls need a check against the usage log
        if sentence := await asyncio.to_thread(unknown_reason, self._deployment, kind, filters.reason):
            raise Rejected("unknown_reason", sentence)

        def letters_now() -> list[DeadLetter]:
            return list(found_letters(self._deployment, kind, filters, limit))

        if dry_run:
            dead_letters = await asyncio.to_thread(letters_now)
            judge = RequeueJudge(self._deployment, self._database)
            return await judge.preview(dead_letters, (accept,) if accept else ()), len(dead_letters)
        async with requeuer(self._deployment, CommandProducer(self._deployment.kafka), self._database) as at:
            dead_letters = await asyncio.to_thread(letters_now)
            if not dead_letters:
                return RequeueResult(), 0
            audit_id = await at.audit("requeue", dead_letters, kind, filters, why, actor, accept=accept)
            return await at.requeue(dead_letters, audit_id, lambda _count: None, (accept,) if accept else ()), len(
                dead_letters
            )
