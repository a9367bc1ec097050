"""Which rejected calls are open: one rule, for the commands that read the topic and for those that read the tables."""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition

from connectors.operations import late_calls, rejected_lookup
from connectors.operations.dismissed import Dismissed
from connectors.operations.money_notes import notes_of
from connectors.postgres.migrate import FOLDER as MIGRATIONS
from connectors.postgres.pool import Database
from connectors.postgres.recover import _BEGIN_ANEW
from connectors.postgres.rows_of_calls import Resolved, rejected_rows
from schemas.records import Rejection
from streams.agents.projector import PartitionPosition
from tests.support.database import migrated_database, rows
from tests.support.history import TOPICS, TopicRecord
from tests.support.projection import Writer

AT_US = 1_795_176_000_000_000
OPEN = 'SELECT partition, "offset" FROM open_rejected_calls ORDER BY 1, 2'
DISMISSING = ("purged", "known")


def refusal(number: int = 1, reason: str = "bad_cost") -> Rejection:
    """A call that the meter refused; copies have the same number."""
    return Rejection(reason, "meter", AT_US, "", number, msgspec.Raw(b'{"id": "%d"}' % number))


def body(number: int = 1) -> Rejection:
    """A body that was no JSON; only its hash is stored."""
    return Rejection("not_json", "ingress", AT_US, length=3, sha256=f"{number:064x}")


@dataclass(frozen=True)
class Message:
    """A record of a partition, as librdkafka has it."""

    place: tuple[int, int]
    content: bytes

    def value(self) -> bytes:
        return self.content

    def partition(self) -> int:
        return self.place[0]

    def offset(self) -> int:
        return self.place[1]


def mark(offset: int, how: str) -> tuple[tuple[str, bytes], ...]:
    return ("resolves", str(offset).encode()), ("how", how.encode()), ("audit_id", b"a")


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        yield url


async def project(writer: Writer, partition: int, log: Sequence[Rejection | tuple[int, str]]) -> None:
    """Project the next records of a partition: rejected calls, and marks of an earlier offset."""
    place = await writer.projection.begin(TopicPartition(TOPICS.rejected, partition), PartitionPosition("id", 0))
    records = [
        TopicRecord(place.next + n, AT_US // 1000, b"acme", b"", mark(*one))
        if isinstance(one, tuple)
        else TopicRecord(place.next + n, AT_US // 1000, b"acme", msgspec.json.encode(one))
        for n, one in enumerate(log)
    ]
    await writer.take(TOPICS.rejected, partition, records)


async def reported(url: str) -> dict[str, int]:
    """The open rejected calls of `meterbridge reconcile`, by reason."""
    with Database(url, size=1) as database:
        return {reason: calls for reason, calls, _ in (await notes_of(database)).refused}


def open_in_topic(logs: dict[int, list[TopicRecord]], order: Sequence[int]) -> list[tuple[int, int]]:
    """The open rejected calls, as `meterbridge dlq list` finds them; `order`: the partitions as they are read."""
    marked = {
        (n, one.offset): one.resolution
        for n in order
        for one in rejected_rows(logs[n]).rows
        if isinstance(one, Resolved)
    }
    dismissed = Dismissed({place for place, how in marked.items() if how in DISMISSING})
    return sorted(
        (n, record.offset)
        for n in order
        for record in logs[n]
        if not dismissed.is_copy(Message((n, record.offset), record.value or b""))  # type: ignore[arg-type]
        and not record.headers
        and (n, record.offset) not in marked
    )


async def test_a_dismissed_body_that_is_sent_again_is_not_open(url: str) -> None:
    """Only its hash is stored. `dlq list` did not show the copy, `reconcile` reported it, and no command ended that."""
    async with Writer(url) as writer:
        await project(writer, 0, [body(1), (0, "purged"), body(1), body(2)])
    assert await reported(url) == {"not_json": 1}


async def test_a_copy_of_a_body_that_an_earlier_release_dismissed_is_not_open_once_the_topic_is_read_again(
    url: str,
) -> None:
    """Before migration 0024 a body had no digest, so no later copy of it was found."""
    log: list[Rejection | tuple[int, str]] = [body(1), (0, "purged")]
    async with Writer(url) as writer:
        await project(writer, 0, log)
        await rows(url, "UPDATE rejected_calls SET call_digest = NULL")
        await project(writer, 0, [body(1)])
        assert await reported(url) == {"not_json": 1}
        await rows(url, (MIGRATIONS / "0028_digests_of_dismissed_bodies.sql").read_text())
        await project(writer, 0, [*log, body(1)])
        assert await reported(url) == {}
        await rows(url, (MIGRATIONS / "0028_digests_of_dismissed_bodies.sql").read_text())
    assert await rows(url, "SELECT next FROM projector_offsets") == [(3,)], "it is read again only once"


async def test_a_call_that_was_dismissed_in_a_lost_topic_is_open_when_it_is_refused_again(url: str) -> None:
    """The new topic has no mark of it, so `dlq list` shows it; `reconcile` and `explain --request` did not."""
    async with Writer(url) as writer:
        await project(writer, 0, [refusal(1), (0, "known"), refusal(2)])
        for statement in _BEGIN_ANEW:  # by `meterbridge recover`
            await rows(url, statement)
        await rows(url, "DELETE FROM projector_offsets")
        assert await reported(url) == {}
        await project(writer, 0, [refusal(1)])
    assert await reported(url) == {"bad_cost": 1}
    assert await rows(url, rejected_lookup._OPEN, "1") == [(0, 0)]


async def test_a_late_call_that_was_ever_dismissed_is_not_released_automatically(url: str) -> None:
    """It may be open, for example after a loss of the topic, or in another partition: then a person decides."""
    waiting = (late_calls._WAITING, 0, -1, 10, [])
    async with Writer(url) as writer:
        await project(writer, 0, [refusal(1, "beyond_horizon"), refusal(2, "beyond_horizon"), (1, "known")])
        await project(writer, 1, [refusal(1, "beyond_horizon"), (0, "purged")])
        assert await rows(url, OPEN) == [(0, 0)]
        assert await rows(url, *waiting) == []
        await project(writer, 0, [refusal(2, "beyond_horizon")])
    assert await rows(url, OPEN) == [(0, 0)]
    assert await rows(url, *waiting) == [(3,)], "a copy of a counted call gets its mark too"


@pytest.mark.parametrize("seed", range(5))
async def test_the_topic_and_the_tables_have_the_same_open_calls(url: str, seed: int) -> None:
    chance = random.Random(seed)
    kinds: list[Any] = [refusal, body]
    logs: dict[int, list[TopicRecord]] = {}
    for partition in range(2):
        log = logs[partition] = []
        for offset in range(60):
            if offset and chance.random() < 0.3:
                how = chance.choice([*DISMISSING, "requeued"])
                log.append(TopicRecord(offset, 5000, b"acme", b"", mark(chance.randrange(offset), how)))
            else:
                value = msgspec.json.encode(chance.choice(kinds)(chance.randrange(8)))
                log.append(TopicRecord(offset, 5000, b"acme", value))
    async with Writer(url) as writer:
        for partition, log in logs.items():
            await writer.take(TOPICS.rejected, partition, log)
    found = [tuple(row) for row in await rows(url, OPEN)]
    assert found == open_in_topic(logs, (0, 1)) == open_in_topic(logs, (1, 0))
    assert found and sum((await reported(url)).values()) == len(found)
