"""`meterbridge topics expand` in a process that kills itself at one step: `python -m tests.faults.mortal_expansion STEP WORDS...`."""

import sys
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaProducer

from connectors.cli.main import app
from connectors.config.kafka_connection import KafkaConnection
from connectors.operations import expansion
from schemas.ledger import POSITION_KEY
from schemas.topics import CHANGELOG, RAW
from streams.runtime.transactions import TransactionalWriter
from streams.state.ledger import LedgerConfig
from streams.state.ledger_expand import Expanded
from tests.faults.self_killing_worker import die

#: The audit line is written; the changelog has grown; copies are committed; the positions are at the broker and not
#: committed; one ledger has moved; both have; all topics have grown but the raw one; the raw one has, too.
AUDITED, CHANGELOG_GROWN, COPIED, POSITIONS_SENT = "audited", "changelog_grown", "copied", "positions_sent"
ONE_MOVED, ALL_MOVED, RAW_LEFT, RAW_GROWN = "one_moved", "all_moved", "raw_left", "raw_grown"
STEPS = (AUDITED, CHANGELOG_GROWN, COPIED, POSITIONS_SENT, ONE_MOVED, ALL_MOVED, RAW_LEFT, RAW_GROWN)


def die_at(step: str) -> None:
    """Wrap what the command calls, so that the process dies at `step`."""
    grow, expand = expansion.grow, expansion.expand
    commit, end = TransactionalWriter.commit, AIOKafkaProducer.commit_transaction
    last: list[bool] = []

    def growing(kafka: KafkaConnection, counts: Mapping[str, int]) -> list[str]:
        (name,) = counts
        if (name.endswith(CHANGELOG.name) and step == AUDITED) or (name.endswith(RAW.name) and step == RAW_LEFT):
            die()
        grown = grow(kafka, counts)
        if (name.endswith(CHANGELOG.name) and step == CHANGELOG_GROWN) or (
            name.endswith(RAW.name) and step == RAW_GROWN
        ):
            die()
        return grown

    async def expanding(place: LedgerConfig, partition: int, partitions: int) -> Expanded:
        done = await expand(place, partition, partitions)
        if step == ONE_MOVED or (step == ALL_MOVED and partition == place.partitions - 1):
            die()
        return done

    async def committing(self: TransactionalWriter, writes: Any, *others: Any, **more: Any) -> Any:
        writes = [*writes]
        if any(write.key == POSITION_KEY for write in writes):
            last.append(True)
        ends = await commit(self, writes, *others, **more)
        if step == COPIED:
            die()
        return ends

    async def ending(self: AIOKafkaProducer) -> None:
        if last and step == POSITIONS_SENT:
            die()
        await end(self)

    expansion.grow, expansion.expand = growing, expanding  # type: ignore[assignment]
    TransactionalWriter.commit, AIOKafkaProducer.commit_transaction = committing, ending


if __name__ == "__main__":
    die_at(sys.argv[1])
    app(sys.argv[2:])
