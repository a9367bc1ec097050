"""`meterbridge recover` refuses what would bill calls twice, and a run that was cut off is repeated."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import Producer

from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoUnavailable
from connectors.lago.events import MOVED, StoredEvent
from connectors.operations.ledger_rebuild import rebuild
from connectors.operations.ledger_totals import positions_of
from connectors.operations.recovery import Recovery, recover
from connectors.operations.recovery_at_lago import only_at_lago
from schemas.errors import Rejected
from schemas.ledger import POSITION_KEY, Position
from schemas.records import LagoEvent
from streams.core.metering.reconciliation import LagoUsage
from streams.runtime.transactions import TransactionalWriter
from tests.support.database import rows
from tests.support.eventually import soon
from tests.support.stage import Stage

_FILLED = "INSERT INTO projector_offsets (topic, partition, topic_id, next) VALUES ($1, 0, 'lost', 7)"
ORG = {"org_id": "acme", "organization": "", "periods": '[{"external_id": "sub"}]'}


async def recovered(stage: Stage, database: str) -> Recovery:
    return await recover(stage.deployment, database, {}, "a test", do=True)


@pytest.mark.parametrize("at", [4, 6])
async def test_a_ledger_whose_beginning_was_cut_off_begins_with_the_repeat(
    stage: Stage, database: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Of three transactions for each of two partitions, this one is refused. Else the meter would begin the ledger, and would count
    again whatever is sent again.
    """
    await rows(database, _FILLED, stage.topics.enriched)
    commits, committing = 0, TransactionalWriter.commit

    async def commit(self: TransactionalWriter, *how: Any) -> Any:
        nonlocal commits
        commits += 1
        if commits == at:
            raise KafkaConnectionError
        return await committing(self, *how)

    with monkeypatch.context() as cut:
        cut.setattr(TransactionalWriter, "commit", commit)
        with pytest.raises(KafkaConnectionError):
            await recovered(stage, database)
    group = stage.deployment.kafka_id("meter").removesuffix("meter")
    async with stage.running("meter", stage.parts(group_prefix=group)):
        await soon(lambda: len(stage.sensors.halted) >= 2 - (at - 4) // 2)
    assert {reason for _, _, reason in stage.sensors.halted} == {"ledger_missing"}, (
        "a meter must not begin before the repeat"
    )
    done = await recovered(stage, database)
    assert done.ledgers == 2 - (at - 4) // 2
    positions = positions_of(stage.deployment)
    assert sorted(positions) == [0, 1] and all(one.forgot_us for one in positions.values())
    with pytest.raises(Rejected, match="topics_not_empty"):
        await recovered(stage, database)


async def test_a_ledger_that_a_meter_began_is_not_taken_for_recovered(stage: Stage, database: str) -> None:
    await rows(database, _FILLED, stage.topics.enriched)
    producer = Producer({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    producer.produce(stage.topics.changelog, msgspec.msgpack.encode(Position()), POSITION_KEY, partition=1)
    assert producer.flush(30) == 0
    with pytest.raises(Rejected, match="topics_not_empty"):
        await recovered(stage, database)


async def test_a_ledger_that_is_lost_after_a_recovery_is_rebuilt_as_one_that_does_not_know_what_was_before_it(
    stage: Stage, database: str
) -> None:
    """The new topics do not show which calls were billed before they were made: a copy of one waits for the usage log."""
    await rows(database, _FILLED, stage.topics.enriched)
    await recovered(stage, database)
    producer = Producer({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    producer.produce(stage.topics.changelog, None, POSITION_KEY, partition=0)
    assert producer.flush(30) == 0
    done = await rebuild(stage.deployment, 0, "lost again", accept_gaps=False)
    assert done.state == "ledger_missing"
    assert positions_of(stage.deployment)[0].forgot_us > 0


async def test_a_database_that_was_never_filled_is_no_copy_of_what_was_lost(stage: Stage, database: str) -> None:
    with pytest.raises(Rejected, match="never filled"):
        await recovered(stage, database)
    assert not positions_of(stage.deployment)


class Moving:
    """A Lago with two events, whose list changes at the first readings before its second page is read."""

    def __init__(self, moves: int) -> None:
        self.moves = moves

    async def current_usage(self, *_: str) -> LagoUsage:
        return LagoUsage("sub", 0, 1, Decimal(2), 1)

    async def read_events_of(self, *how: Any) -> str:
        take: Callable[[StoredEvent], None] = how[-1]
        take(StoredEvent("meterbridge-2"))
        self.moves -= 1
        if self.moves >= 0:
            return MOVED
        take(StoredEvent("meterbridge-1"))
        return ""

    async def get_event(self, name: str) -> LagoEvent:
        return LagoEvent(name, "sub", "ai_usage", "1795176000.000", "1", {"org_id": "acme"})


async def at_lago(database: str, moves: int) -> list[str]:
    lagos = {"": cast(LagoClient, Moving(moves))}
    found = await only_at_lago(database, lagos, [ORG], [], "meterbridge", "ai_usage")
    return [one.transaction_id for one in found]


async def test_a_list_that_changes_between_its_pages_is_read_again(database: str) -> None:
    """What stands on the pages that were not read would be billed again."""
    assert await at_lago(database, 2) == ["meterbridge-1", "meterbridge-2"]


async def test_without_a_whole_list_nothing_is_recovered(database: str) -> None:
    with pytest.raises(LagoUnavailable, match="changed"):
        await at_lago(database, 100)
