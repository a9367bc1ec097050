"""A large release is corrected in chunks, one transaction each: other work runs in between, and a kill changes no
balance.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest
from aiokafka import TopicPartition

from connectors.postgres import corrections, projection
from connectors.postgres.prune import prunable, prune
from streams.agents.projector import PartitionPosition
from tests.support.credits import account, balanced, give, prepaid_since, reserve
from tests.support.database import migrated_database, rows
from tests.support.eventually import within
from tests.support.history import PREFIX, TOPICS, TopicRecord
from tests.support.projection import Writer, event, manifest, receipt, usage

PRICED = {"billed_usd": Decimal(2), "price_usd": Decimal(4), "rate": "r1"}
HALVED = {"rate": "r1", "rate_factor": "0.25"}
#: What was written in each transaction.
WRITTEN = "SELECT count(*) FROM credit_transactions WHERE idempotency_key LIKE 'call:%' GROUP BY xmin::text"
LOG = "SELECT identity, billed_usd, price_usd FROM llm_usage_log ORDER BY 1"
_Correct = Callable[..., Awaitable[Any]]


class Killed(Exception):
    """The process ends here."""


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        for name in ("org:org", "org:old"):
            await give(url, name, "100")
        await prepaid_since(url, "2026-11-20 00:00Z")
        yield url
        await balanced(url)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "CHUNK", 2)


def ahead(monkeypatch: pytest.MonkeyPatch, name: str, once: Callable[[], Awaitable[None]]) -> None:
    """Runs this before each call of that function of the projection."""
    real: _Correct = getattr(projection, name)

    async def watched(*given: Any, **named: Any) -> Any:
        await once()
        return await real(*given, **named)

    monkeypatch.setattr(projection, name, watched)


def killed_after(times: int) -> Callable[[], Awaitable[None]]:
    """Does nothing for this number of calls, then ends the process."""
    alive = iter(range(times))

    async def once() -> None:
        if next(alive, None) is None:
            raise Killed

    return once


async def net_balances(url: str) -> list[Decimal]:
    return [balance - owed for balance, owed in [await account(url, name) for name in ("org:org", "org:old")]]


async def other(writer: Writer, *calls: Any) -> None:
    """Project these calls of another partition."""
    tp = TopicPartition(TOPICS.enriched, 1)
    place = await writer.projection.begin(tp, PartitionPosition("id", 0))
    said = [
        TopicRecord(place.next + n, 1_795_176_000_000, b"", msgspec.json.encode(call)) for n, call in enumerate(calls)
    ]
    assert await writer.take(TOPICS.enriched, 1, said)


@pytest.mark.parametrize("held", ["", "no_mapping"])
async def test_a_kill_between_two_chunks_changes_no_final_balance(
    url: str, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """The call by which a part is judged may be corrected already, and other calls of it not."""
    async with Writer(url) as writer:
        for chunks in range(4):  # a part for each number of chunks that are done
            before, number = (await net_balances(url))[0], 10 * (chunks + 1)
            result, kill = event(number, **HALVED), killed_after(chunks)
            calls = [usage(number + n, org_id="org", held=held, part=result.transaction_id, **PRICED) for n in range(6)]
            await writer.put(TOPICS.enriched, *calls)
            with monkeypatch.context() as patched:
                ahead(patched, "correct", kill)
                ahead(patched, "corrected", kill)
                with pytest.raises(Killed):
                    await writer.put(TOPICS.events, result)
            await balanced(url)
            assert await net_balances(url) == [before - 2 * 6 + 2 * chunks, Decimal(100)]
            assert await writer.put(TOPICS.events, result)
            assert await net_balances(url) == [before - 6, Decimal(100)]
        assert {row[1:] for row in await rows(url, LOG)} == {(Decimal(1), Decimal(4))}
        assert await rows(url, "SELECT done, count(*) FROM corrected_parts GROUP BY 1") == [(True, 4)]
        moves = await rows(url, WRITTEN)
        await rows(url, "TRUNCATE projector_offsets")
        assert await writer.put(TOPICS.events, *(event(10 * (n + 1), **HALVED) for n in range(4)))
        assert await rows(url, WRITTEN) == moves


async def test_no_transaction_touches_more_calls_than_a_chunk_and_an_authorisation_runs_in_between(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []

    async def authorize() -> None:
        """The account is not locked: nothing waits for the next chunk or for the last one."""
        await rows(url, "SELECT FROM user_credits WHERE account = 'org:org' FOR UPDATE NOWAIT")
        answers.append(await reserve(url, "org:org", "1", f"c{len(answers)}"))

    async with Writer(url) as writer, Writer(url) as another:
        await writer.put(TOPICS.enriched, *(usage(n, part=f"{PREFIX}3", held="no_mapping") for n in range(7)))
        ahead(monkeypatch, "correct", authorize)
        ahead(monkeypatch, "correct", lambda: other(another, usage(len(answers) + 100, org_id="old")))
        assert await writer.put(TOPICS.events, event(), manifest=manifest(3))
    assert [authorized for authorized, *_ in answers] == [True] * 4
    assert sorted(count for (count,) in await rows(url, WRITTEN)) == [1, 1, 1, 1, 1, 2, 2, 2]


async def test_calls_projected_between_two_chunks_count_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of the part that arrive late, copies of existing ones, and the receipt of a write-off of another part."""
    calls = [usage(n, org_id="old", held="no_subscription", cost_usd=Decimal(1)) for n in range(6)]
    late = [usage(n, org_id="old", held="no_subscription", cost_usd=Decimal(1)) for n in range(6, 9)]
    gone = [usage(n, org_id="old", held="no_subscription", part=f"{PREFIX}9", cost_usd=Decimal(5)) for n in (10, 11)]
    lost = msgspec.structs.replace(receipt("written_off", 5), transaction_id=f"{PREFIX}9")
    steps, beside = 0, []
    async with Writer(url) as writer, Writer(url) as another, Writer(url) as third:

        async def between() -> None:
            nonlocal steps
            steps += 1
            if steps == 2:
                await other(another, late[0], *reversed(calls), late[1])
                # These two get their turn when this chunk is committed.
                beside.append(asyncio.ensure_future(third.put(TOPICS.receipts, lost)))
                beside.append(asyncio.ensure_future(other(another, late[2], calls[0])))

        await writer.put(TOPICS.enriched, *calls, *gone)
        ahead(monkeypatch, "correct", between)
        assert await writer.put(TOPICS.events, event())
        await asyncio.gather(*beside)
    assert await net_balances(url) == [Decimal(91), Decimal(100)]
    assert await rows(url, "SELECT bool_and(done), count(*) FROM corrected_parts") == [(True, 2)]


@pytest.mark.parametrize("prepaid", [True, False])
async def test_an_event_waits_for_calls_that_are_being_written_and_may_not_have_seen_it(
    url: str, monkeypatch: pytest.MonkeyPatch, *, prepaid: bool
) -> None:
    """This holds even if the first account is opened at that time: then the calls were written as calls without an account."""
    accounts = [("org:org", "100"), ("org:old", "100")]
    if not prepaid:
        for name in ("credit_transactions", "ledger_entries", "ledger_transactions"):
            await rows(url, f"ALTER TABLE {name} DISABLE TRIGGER USER")
        await rows(url, "TRUNCATE user_credits, ledger_transactions CASCADE")
        await rows(url, "DELETE FROM ledger_accounts WHERE kind <> 'system'")
    seen, go = asyncio.Event(), asyncio.Event()
    real = projection.debit

    async def debit(*given: Any) -> Any:
        debited = await real(*given)
        seen.set()
        await go.wait()
        return debited

    monkeypatch.setattr(projection, "debit", debit)
    async with Writer(url) as calls, Writer(url) as events:
        writing = asyncio.ensure_future(calls.put(TOPICS.enriched, usage(1, org_id="old", cost_usd=Decimal(2))))
        await seen.wait()
        if not prepaid:
            for name, amount in accounts:
                await give(url, name, amount)
            await prepaid_since(url, "2026-11-20 00:00Z")
        telling = asyncio.ensure_future(events.put(TOPICS.events, event()))
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND mode = 'ExclusiveLock'"
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while not telling.done() and (await rows(url, waiting))[0][0] == 0:
                    await asyncio.sleep(0.01)
        go.set()
        await asyncio.gather(writing, telling)
    assert await net_balances(url) == [Decimal(98), Decimal(100)]


async def test_a_repetition_of_the_calls_and_their_event_never_deadlock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lock the calls in one order, for any order of the records."""
    monkeypatch.setattr(corrections, "CHUNK", 3)
    one, two, three = (usage(n, org_id="org", **PRICED) for n in (1, 2, 3))
    blocker = await asyncpg.connect(url)
    try:
        async with Writer(url) as events, Writer(url) as calls:
            await calls.put(TOPICS.enriched, one, two, three)
            await blocker.execute("BEGIN")
            await blocker.execute(
                "SELECT FROM llm_usage_log WHERE identity = $1 FOR UPDATE", bytes.fromhex(two.identity)
            )
            telling = asyncio.ensure_future(events.put(TOPICS.events, event(**HALVED)))
            await _blocked(url, 1)
            repeating = asyncio.ensure_future(other(calls, three, two, one))
            await _blocked(url, 2)
            await blocker.execute("COMMIT")
            await asyncio.gather(telling, repeating)
    finally:
        await blocker.close()
    assert await net_balances(url) == [Decimal(97), Decimal(100)]


async def _blocked(url: str, count: int) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with within(20):
        while (await rows(url, waiting))[0][0] < count:
            await asyncio.sleep(0.01)


async def test_a_month_is_kept_while_its_calls_are_being_corrected(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its event may be delivered long before a killed projector comes back."""
    now = datetime.now(UTC) + timedelta(days=60)
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, *(usage(n, org_id="old", held="no_subscription") for n in range(3)))
        with monkeypatch.context() as patched:
            ahead(patched, "corrected", killed_after(0))
            with pytest.raises(Killed):
                await writer.put(TOPICS.events, event())
        await writer.put(TOPICS.receipts, receipt("completed", 1))
        assert (await prune(url, now)).kept == {"2026-11": 3}
        await writer.put(TOPICS.events, event())
        assert (await prune(url, now)).months == {"2026-11": 3}
    assert await rows(url, "SELECT count(*) FROM corrected_parts") == [(0,)]


async def test_a_month_is_kept_while_an_event_is_delivered_but_not_projected(url: str) -> None:
    """A large release before it in its partition takes hours, while the receipts, in another partition, go on."""
    now = datetime.now(UTC) + timedelta(days=60)
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, *(usage(n, held="no_mapping", cost_usd=Decimal(2)) for n in range(3)))
        await writer.put(TOPICS.receipts, receipt("completed", 1))
        assert (await prunable(url, now)).kept == (await prune(url, now)).kept == {"2026-11": 3}
        await writer.put(TOPICS.events, event())
        assert await net_balances(url) == [Decimal(94), Decimal(100)]
        assert (await prune(url, now)).months == {"2026-11": 3}
