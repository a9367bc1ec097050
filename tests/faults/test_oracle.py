"""The oracle finds every error that it is made for: each condition is broken once, and the report names it."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest

from schemas.ledger import Counters, Position, Window
from schemas.ledger import Sum as LedgerSum
from schemas.records import EnrichedUsage, LagoEvent, Receipt
from streams.core.metering.ledger_state import LedgerState
from tests.faults.calls import Call, Owed
from tests.faults.oracle import Found, SentEvent, verdict

_SUBSCRIPTIONS = {"customer-00": "sub-a", "customer-01": "sub-b"}
_ORGS = {"org-a": "sub-a"}
_COSTS = {"c1": Decimal("0.000145"), "c2": Decimal("0.00000915")}


def owed() -> Owed:
    created = Owed()
    for customer, (name, cost) in zip(_SUBSCRIPTIONS, _COSTS.items(), strict=True):
        created.note(Call((name, f"id-{name}", "success"), customer, "", cost, 22, billed=True))
    created.note(Call(("c3", "id-c3", "success"), "customer-00", "", Decimal("0.5"), 9, billed=False))
    created.metered["tx-1"] = ("org-a", {"tokens": "7"})
    return created


_METERED = {"transaction_id": "tx-1", "tokens": "7", "org_id": "org-a"}


def exact() -> Found:
    """Two calls billed on two subscriptions, one unbilled call, one delivered twice, and an event of another metric:
    five raw records in one partition.
    """
    folded = LedgerSum(3, Decimal("0.00015415"))
    counters = Counters(
        received=LedgerSum(5, Decimal("0.50029915")),
        folded=folded,
        duplicate=LedgerSum(1, Decimal("0.000145")),
        unbilled=LedgerSum(1, Decimal("0.5")),
        sealed=folded,
    )
    events = [
        SentEvent(0, 1, LagoEvent("p-0", "sub-a", "ai_usage", "1.000", "0.0145", {"requests": "1"})),
        SentEvent(0, 2, LagoEvent("p-1", "sub-b", "ai_usage", "1.000", "0.000915", {"requests": "1"})),
        SentEvent(0, 3, LagoEvent("p-2", "sub-a", "api_call", "1.000", "0", _METERED)),
    ]
    return Found(
        stats={
            "subscriptions": {
                "sub-a": {"calls": 1, "tokens": 22, "cents": "0.0145", "billed_cents": "0.0145"},
                "sub-b": {"calls": 1, "tokens": 22, "cents": "0.000915", "billed_cents": "0.000915"},
            },
            "conflicts": 0,
        },
        lago_events=[msgspec.to_builtins(sent.event) for sent in events],
        raw_ends={0: 5},
        ledger={0: LedgerState(Position(next=5, counters=counters, seal_seq=3))},
        events=events,
        enriched={
            0: [
                enriched(0, "c1"),
                enriched(1, "c2"),
                enriched(2, "c1", "duplicate"),
                enriched(3, "c3", "cache_hit"),
                enriched(4, "tx-1", "metered"),
            ]
        },
        receipts=[Receipt(name, status, 0) for name in ("p-0", "p-2", "p-1") for status in ("pending", "completed")],
    )


def enriched(offset: int, name: str, decision: str = "billable") -> EnrichedUsage:
    customer = "customer-01" if name == "c2" else "customer-00"
    cost = _COSTS.get(name, Decimal("0.5"))
    record = EnrichedUsage(name, offset, customer, "end_user", decision, cost, "", "", total_tokens=22)
    record.call_id, record.request_id, record.status = name, f"id-{name}", "success"
    return record


def test_an_exact_run_has_no_violation() -> None:
    assert verdict(exact(), owed(), _SUBSCRIPTIONS, _ORGS) == []


def _stats(found: Found, **changed: object) -> None:
    found.stats["subscriptions"]["sub-a"].update(changed)


def _again(found: Found) -> None:
    found.enriched[0][2].decision = "billable"


def _hold(found: Found) -> None:
    window = Window(0, 0, "customer-00", "end_user", "", "", "no_mapping", "m", "p", (), 0, 1, 0, 0, 1)
    found.ledger[0].put(window, 0)


def _reseal(found: Found) -> None:
    found.events[1] = replace(found.events[1], seal_seq=3)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda f: _stats(f, calls=2), "sub-a: +1 calls of 1"),
        (lambda f: _stats(f, tokens=21), "sub-a: -1 tokens of 22"),
        (lambda f: _stats(f, cents="0.014500000000001"), "sub-a: +0.000000000000001 cents"),
        (lambda f: _stats(f, billed_cents="0"), "sub-a: 0.0145 cents stored, 0 inside a period"),
        (lambda f: f.stats["subscriptions"].pop("sub-b"), "sub-b: -1 calls of 1"),
        (lambda f: f.stats.update(conflicts=1), "two contents"),
        (lambda f: setattr(f.ledger[0].position, "next", 3), "ledger 0 stands at 3 of 5"),
        (
            lambda f: setattr(f.ledger[0].position.counters, "duplicate", LedgerSum()),
            "ledger 0: received is off by 1 call",
        ),
        (lambda f: setattr(f.ledger[0].position.counters, "sealed", LedgerSum()), "ledger 0: folded is off by 3 calls"),
        (_hold, "1 windows are left, 1 of them held"),
        (_reseal, "seal_seq of partition 0: missing [2], twice [3]"),
        (lambda f: f.events.append(f.events[0]), "in the events topic more than once: p-0"),
        (lambda f: f.lago_events.pop(1), "1 sealed, never stored at Lago: p-1"),
        (lambda f: f.lago_events.pop(), "1 recorded, not at Lago as recorded: ('sub-a', 'tx-1'"),
        (lambda f: f.lago_events[2].update(external_subscription_id="sub-b"), "1 recorded, not at Lago as recorded"),
        (lambda f: f.lago_events[2]["properties"].update(tokens="8"), "at Lago, not recorded so, or once too often"),
        (lambda f: f.lago_events.append(f.lago_events[2]), "once too often: ('sub-a', 'tx-1'"),
        (lambda f: f.enriched[0].pop(), "0 metered events enriched, 1 recorded"),
        (lambda f: f.lago_events[0].update(transaction_id="x"), "1 stored at Lago, never sealed: x"),
        (lambda f: f.lago_events[0].update(precise_total_amount_cents="1"), "of another content at Lago: p-0"),
        (lambda f: f.lago_events.append(f.lago_events[0]), "stored at Lago more than once: p-0"),
        (lambda f: f.receipts.pop(), "p-1 ends pending"),
        (lambda f: f.enriched[0].pop(3), "1 sent, not enriched: ('c3', 'id-c3', 'success')"),
        (lambda f: f.enriched[0].insert(0, enriched(0, "c4", "zero_cost")), "1 enriched, never sent: ('c4'"),
        (lambda f: f.enriched[0].insert(1, f.enriched[0][0]), "enriched 0: an offset comes twice or out of order"),
        (_again, "enriched more than once: ('c1', 'id-c1', 'success')"),
        (_again, "identities more than once: c1"),
        (lambda f: setattr(f.enriched[0][0], "decision", "duplicate"), "1 owed, not billed: ('c1'"),
        (lambda f: setattr(f.enriched[0][3], "decision", "billable"), "1 billed, not owed: ('c3'"),
        (lambda f: setattr(f.enriched[0][0], "cost_usd", Decimal(1)), "of another customer, cost or tokens: ('c1'"),
        (lambda f: setattr(f, "rejected", 1), "1 records in the rejected topic"),
        (lambda f: setattr(f, "dead", 1), "1 dead letters"),
    ],
)
def test_every_violation_is_found_and_named(wrong: Callable[[Found], object], expected: str) -> None:
    found = exact()
    wrong(found)
    sentences = verdict(found, owed(), _SUBSCRIPTIONS, _ORGS)
    assert any(expected in sentence for sentence in sentences), sentences
