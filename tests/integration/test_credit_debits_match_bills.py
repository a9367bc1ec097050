"""Credits: what the events bill an org and what was debited for their calls are equal, to the smallest unit.

Histories are made by the meter's own rules, with calls that are held, released to another org or at another factor, held again
when they were to be sealed, and written off. Their topics are projected in any order, by a process that is killed at any moment.
"""

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal, localcontext
from itertools import count
from typing import Any

import msgspec
import pytest

from connectors.postgres import corrections, projection
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import HOUR_US, SECOND_US
from schemas.money import EXACT
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.records import LagoEvent, WriteOff
from streams.core.mapping.resolve import Resolver
from streams.core.metering.close_window import coalesce, due_windows, release, seal
from streams.core.metering.fold import Fold
from streams.core.metering.write_off import write_off
from streams.core.pricing.cards import Rates
from tests.support.calls import NOON, raw, slp
from tests.support.credits import balanced, give, prepaid_since
from tests.support.database import migrated_database, rows
from tests.support.history import PREFIX, TOPICS, History, _step
from tests.support.projection import Writer
from tests.support.rate_cards import card, entry

POLICY = MeterPolicy(window_us=10 * SECOND_US, quiet_us=0, out_of_period_policy=OutOfPeriodPolicy.HOLD)
#: The plan of org `a` has a factor, org `b` has its own, org `c` is not prepaid.
CARD = card(entry("b", per_request="0.01", input="3.3"), plan={"pro": "0.85", "max": "0.5"}, org={"b": "1.3"})
ORGS = {
    "a": OrgRecord("a", periods=(Period("sub-a", 0, plan_code="pro"),)),
    "b": OrgRecord("b", periods=(Period("sub-b", 0),)),
    "c": OrgRecord("c", periods=(Period("sub-c", 0),)),
}
#: Held for an org that is known, and sealed for it only while its subscription covers the usage.
UNBILLED = {
    "a": OrgRecord("a", periods=(Period("sub-a", NOON + 9 * HOUR_US, plan_code="pro"),)),
    "b": OrgRecord("b"),
    "c": OrgRecord("c", periods=(Period("sub-c", 0),)),
}
#: Org `a` has another plan.
MOVED_UP = {**ORGS, "a": OrgRecord("a", periods=(Period("sub-a", 0, plan_code="max"),))}
NAMES = ("x", "y", "z", "ada")
KINDS = {"ada": "user"}
LEFT = "SELECT account, balance - overdraft FROM user_credits"
MOVES = "SELECT count(*) FROM credit_transactions"
#: How often the process is killed ahead of a step of a correction, of which each is a transaction.
DEATHS = 0.1


class Killed(Exception):
    """The process ends here."""


@pytest.fixture(autouse=True)
def _mortal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are corrected three at a time, and read from two parts at a time."""
    chance = random.Random(0)

    def mortal(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def once(*given: Any, **named: Any) -> Any:
            if chance.random() < DEATHS:
                raise Killed
            return await step(*given, **named)

        return once

    async def read(*given: Any) -> AsyncIterator[corrections.Keys]:
        async for calls in corrections.calls_of(*given):
            if chance.random() < DEATHS:
                raise Killed
            yield calls

    monkeypatch.setattr(corrections, "CHUNK", 3)
    monkeypatch.setattr(corrections, "PARTS", 2)
    monkeypatch.setattr(projection, "calls_of", read)
    for name in ("correct", "corrected"):
        monkeypatch.setattr(projection, name, mortal(getattr(projection, name)))


def mapped(name: str, org: str, version: int) -> CustomerRecord:
    return CustomerRecord(name, (MappingVersion(0, org, "tenant"),), version, 0)


def history(seed: int, *, rated: bool) -> History:
    """Return the records of a seed, always the same ones."""
    chance, result, numbers = random.Random(seed), History(), count()
    cards = [CARD] if rated else []
    fold, now_us, versions = Fold(POLICY, PREFIX), NOON, count(1)
    customers: dict[str, CustomerRecord] = {}
    for _ in range(8):
        orgs = {org: chance.choice((ORGS, MOVED_UP, UNBILLED))[org] for org in ORGS}
        rates = Rates(cards, orgs)
        for name in NAMES:
            if chance.random() < 0.3:
                customers[name] = mapped(name, chance.choice("abc"), next(versions))
        records = []
        for _ in range(chance.randrange(8)):
            name, number = chance.choice(NAMES), next(numbers)
            offset = result.ledger.position.next + len(records)
            cost, model = chance.choice(["0.000145", "8.85e-06", "0"]), chance.choice("ab")
            call = slp(number, at_us=now_us - chance.randrange(20 * SECOND_US), cost=cost, model=model)
            records.append(raw(offset, call, customer=name, received_us=now_us, kind=KINDS.get(name, "team")))
        if records:
            _step(result, fold(result.ledger, records, Resolver(customers, orgs), rates=rates), now_us)
        if chance.random() < 0.3:
            _step(result, coalesce(result.ledger, customers, orgs, POLICY, now_us + 2 * HOUR_US, 100, rates), now_us)
        if chance.random() < 0.2:
            give_up(result, chance.choice(NAMES), now_us)
        if chance.random() < 0.6:
            close(result, customers, orgs, rates, now_us + chance.choice((0, 40 * SECOND_US)))
        now_us += 7 * SECOND_US
    if chance.random() < 0.7:
        customers |= {name: mapped(name, chance.choice("abc"), next(versions)) for name in NAMES}
    orgs = chance.choice((ORGS, UNBILLED))
    close(result, customers, orgs, Rates(cards, orgs), now_us + HOUR_US)
    for name in NAMES:
        give_up(result, name, now_us)
    assert not result.ledger.windows
    return result


def give_up(scenario: History, name: str, now_us: int) -> None:
    order = WriteOff(until=now_us + HOUR_US, at=now_us, audit_id="audit")
    offset = scenario.ledger.position.next
    while scenario.ledger.position.next == offset:
        _step(scenario, write_off(scenario.ledger, offset, now_us // 1000, name, order, PREFIX), now_us)


def close(scenario: History, customers: Any, orgs: Any, rates: Rates, now_us: int) -> None:
    """Release usage with a target, and seal what is due."""
    while not (changes := release(scenario.ledger, customers, orgs, POLICY, 5, now_us, rates=rates)).empty:
        _step(scenario, changes, now_us)
    while due := due_windows(scenario.ledger, now_us, POLICY, 100):
        _step(scenario, seal(scenario.ledger.position, due, orgs, POLICY, PREFIX, 0, now_us), now_us)


def billed(scenario: History) -> dict[tuple[str, str], Decimal]:
    """Dollars that the events bill, by customer and org."""
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    with localcontext(EXACT):
        for (topic, _), log in scenario.logs.items():
            for record in log if topic == TOPICS.events else ():
                event = msgspec.json.decode(record.value or b"", type=LagoEvent)
                whose = event.properties["user_id"], event.properties["org_id"]
                sums[whose] += Decimal(event.precise_total_amount_cents) / 100
    return sums


async def project(url: str, scenario: History, seed: int, piece: int = 12) -> None:
    """Project all topics in any order, in pieces of fewer than `piece` records; a piece that a process did not finish
    comes again, maybe as a larger or smaller piece.
    """
    chance = random.Random(seed)
    left = {place: list(log) for place, log in scenario.logs.items()}
    async with Writer(url) as writer:
        while left:
            topic, partition = place = chance.choice(list(left))
            size = chance.randrange(1, piece)
            if topic != TOPICS.rejected:
                try:
                    await writer.take(topic, partition, left[place][:size])
                except Killed:
                    continue
            del left[place][:size]
            if not left[place]:
                del left[place]


async def prepaid(url: str) -> None:
    """Accounts for this history: a user, an org with credits, and one with almost none."""
    for name, amount in (("user:ada", "1"), ("org:a", "1"), ("org:b", "0.0001")):
        await give(url, name, amount)
    await prepaid_since(url, "2026-11-01 00:00Z")


@pytest.mark.parametrize("first", range(0, 30, 10))
async def test_billed_and_debited_amounts_are_equal_to_the_smallest_unit(postgres_url: str, first: int) -> None:
    for seed in range(first, first + 10):
        async with migrated_database(postgres_url) as url:
            await prepaid(url)
            await _equal(url, history(seed, rated=seed % 3 > 0), seed)


async def _equal(url: str, scenario: History, seed: int) -> None:
    before = dict(await rows(url, LEFT))
    await project(url, scenario, seed)
    after = dict(await rows(url, LEFT))
    sums = billed(scenario)
    assert {name: before[name] - after[name] for name in before} == {
        "user:ada": sum(usd for (name, _), usd in sums.items() if name == "ada"),
        "org:a": sum(usd for (name, org), usd in sums.items() if name != "ada" and org == "a"),
        "org:b": sum(usd for (name, org), usd in sums.items() if name != "ada" and org == "b"),
    }, seed
    await balanced(url)
    log = await rows(url, "SELECT sum(billed_usd) FROM call_terms WHERE decided")
    assert (log[0][0] or 0) == sum(sums.values())
    # From the beginning again, in another order: nothing moves. Into empty tables, all is as before in the end.
    moves = await rows(url, MOVES)
    await rows(url, "TRUNCATE projector_offsets")
    await project(url, scenario, seed + 1000, piece=50)
    assert await rows(url, MOVES) == moves
    await rows(url, "TRUNCATE projector_offsets, llm_usage_log, usage_parts")
    await project(url, scenario, seed + 2000, piece=50)
    assert dict(await rows(url, LEFT)) == after
    await balanced(url)
