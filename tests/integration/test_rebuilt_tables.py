"""`meterbridge ledger rebuild` on a real Kafka, and the tables and debits in a real Postgres that follow it."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from connectors.operations import rebuild_evidence
from connectors.operations.ledger_rebuild import rebuild
from schemas.errors import Rejected
from schemas.moments import SECOND_US
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from streams.core.metering import fold
from streams.core.metering.read_usage import usage_of
from streams.runtime.transactions import TransactionalWriter
from streams.state import ledger_expand
from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.credits import account, balanced, give, prepaid_since
from tests.support.database import projector_parts, rows, until
from tests.support.eventually import soon
from tests.support.expanded import Growing
from tests.support.kafka import Kafka

BEFORE = MeterPolicy(window_us=60 * SECOND_US, grace_us=SECOND_US, quiet_us=SECOND_US // 2)
LOG = "SELECT call_id, decision, part <> '', cost_usd FROM llm_usage_log ORDER BY 1"


@pytest.fixture
def growing(kafka: Kafka, topic_prefix: str) -> Growing:
    """A deployment whose clock stands still, so that windows stay open."""
    return Growing(kafka.bootstrap, topic_prefix, 1, 1)


def call(growing: Growing, number: int, cost: str, **fields: Any) -> Raw:
    return raw(
        0, slp(number, at_us=growing.clock(), cost=cost, **fields), customer="customer-1", received_us=growing.clock()
    )


async def meter(growing: Growing, policy: MeterPolicy, done: Callable[[], bool]) -> None:
    parts = growing.stage.parts(policy, now_us=growing.clock)
    async with growing.stage.running("meter", parts):
        await soon(done, limit_s=40)


async def project(growing: Growing, url: str, query: str, wanted: Any) -> None:
    async with projector_parts(growing.stage, url) as parts, growing.stage.running("project", parts):
        await until(url, query, lambda found: bool(found == wanted))


def stricter(value: bytes | None, *more: Any) -> Usage:
    """Refuse a call, as a later release may do."""
    if b"call-4" in (value or b""):
        raise Rejected("bad_cost")
    return usage_of(value, *more)


async def test_open_calls_that_the_settings_of_today_do_not_bill_are_in_no_part_and_not_debited(
    growing: Growing, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four open calls, one is of the user's own key, one is too expensive by now, and one cannot be read any more. All four were
    billable and debited when the ledger was lost; one is still billed. An operator then accepts the expensive one.
    """
    await give(database, "org:org", "100")
    await prepaid_since(database, "2026-01-01 00:00Z")
    topics = growing.stage.topics
    growing.stage.put([call(growing, 1, "1"), call(growing, 2, "2", byok=True), call(growing, 3, "30")])
    growing.stage.put([call(growing, 4, "4")])
    await meter(growing, BEFORE, lambda: len(growing.stage.values(topics.enriched)) == 4)
    await project(growing, database, "SELECT count(*) FROM llm_usage_log", 4)
    assert await account(database, "org:org") == (Decimal(63), 0)

    growing.lose_changelog()
    for module in (rebuild_evidence, fold):
        monkeypatch.setattr(module, "usage_of", stricter)
    done = await rebuild(growing.stage.deployment, 0, "lost", accept_gaps=False)
    assert (done.state, done.waiting, done.gaps) == ("ledger_missing", 4, ())

    growing.clock.pass_by(120)
    growing.clock.go()
    strict = replace(BEFORE, bill_byok=False, max_usd_per_call=Decimal(10))
    await meter(growing, strict, lambda: growing.billed() == (1, Decimal(100)))
    await project(growing, database, "SELECT count(*) FROM llm_usage_log WHERE part <> ''", 1)
    await project(growing, database, "SELECT count(*) FROM lago_events", 1)
    assert await rows(database, LOG) == [
        ("call-1", "billable", True, Decimal(1)),
        ("call-2", "byok", False, Decimal(2)),
        ("call-3", "rejected", False, Decimal(30)),
        ("call-4", "rejected", False, Decimal(4)),
    ]
    assert await account(database, "org:org") == (Decimal(99), 0)

    chosen = ("--reason", "implausible_cost", "--accept", "implausible_cost")
    accepted = ("dlq", "requeue", *chosen, "--comment", "a real bill", "--json")
    requeued = await meterbridge(growing.stage, *accepted, DATABASE_URL=database)
    assert (requeued.code, requeued.json["requeued"]) == (0, 1), requeued.out + requeued.err
    await meter(growing, strict, lambda: growing.billed() == (2, Decimal(3100)))
    await project(growing, database, "SELECT count(*) FROM llm_usage_log WHERE part <> ''", 2)
    assert await account(database, "org:org") == (Decimal(69), 0)
    await balanced(database)
    checked = await meterbridge(growing.stage, "reconcile", "--json", DATABASE_URL=database)
    assert (checked.code, checked.json["complaints"]) == (0, []), checked.out + checked.err


@pytest.mark.parametrize("commits", [2, 4])
async def test_many_calls_that_cannot_be_read_any_more_are_rejected_in_small_transactions_also_after_a_kill(
    growing: Growing, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction for all of them may take longer than Kafka allows, again at each attempt."""
    topics, unreadable = growing.stage.topics, [4, *range(40, 46)]
    growing.stage.put([call(growing, number, "1") for number in [*unreadable, 1]])
    await meter(growing, BEFORE, lambda: len(growing.stage.values(topics.enriched)) == 8)
    growing.lose_changelog()
    for module in (rebuild_evidence, fold):
        monkeypatch.setattr(module, "usage_of", stricter)
    monkeypatch.setattr(ledger_expand, "_RECORDS", 2)
    commit, left, sizes = TransactionalWriter.commit, [commits], list[int]()

    async def dying(self: TransactionalWriter, writes: Any, *values: Any, **more: Any) -> Any:
        if not left[0]:
            raise InterruptedError
        left[0] -= 1
        sizes.append(len(list(writes)))
        return await commit(self, writes, *values, **more)

    with monkeypatch.context() as patch:
        patch.setattr(TransactionalWriter, "commit", dying)
        with pytest.raises(InterruptedError):
            await rebuild(growing.stage.deployment, 0, "lost", accept_gaps=False)
        left[0] = 100
        assert (await rebuild(growing.stage.deployment, 0, "lost", accept_gaps=False)).state == "ledger_missing"
    assert max(sizes) == 2
    last = {line["call_id"]: line["decision"] for line in growing.stage.values(topics.enriched)}
    assert last == {f"call-{number}": "rejected" for number in unreadable} | {"call-1": "billable"}
    growing.clock.pass_by(120)
    growing.clock.go()
    await meter(growing, BEFORE, lambda: growing.billed() == (1, Decimal(100)))
    refused = [line["reason"] for line in growing.stage.values(topics.rejected)]
    assert refused == ["bad_cost"] * len(unreadable), "each is among the dead letters, once"
