"""What a failed attempt of a call has cost is billed once, although LiteLLM 1.110 reports it twice: with the attempt, and again
with the success that continued its stream. The numbers of `CUT` and `CONTINUED` are those of a router of 1.110.2.
"""

from decimal import Decimal
from itertools import accumulate, permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import FailedAttempt
from schemas.moments import SECOND_US
from schemas.normalised_call import TOKENS
from streams.core.metering.fold import Fold
from streams.core.metering.step_changes import apply
from streams.core.pricing.cards import Rates
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.folding import Partition, subscribed
from tests.support.rate_cards import card, entry

CUT = {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}
CONTINUED = {"prompt_tokens": 59, "completion_tokens": 40, "total_tokens": 99}
OWN, PARTIAL, WHOLE = "0.0025", "0.00209", "0.00459"


def attempt(number: int, call: dict[str, Any], seconds: int, customer: str) -> Raw:
    at_us = NOON + seconds * SECOND_US
    fields = {"litellm_call_id": "call-x", **call}
    return raw(0, slp(number, at_us=at_us, **fields), customer=customer, received_us=at_us)


def cut(number: int = 1, *, seconds: int = 0, cost: str = PARTIAL, customer: str = "acme", **fields: Any) -> Raw:
    """A stream that its provider cut after 20 tokens."""
    return attempt(number, {"id": "call-x", "status": "failure", "cost": cost, **CUT, **fields}, seconds, customer)


def continued(number: int = 2, *, seconds: int = 3, cost: str = WHOLE, carried: str = PARTIAL, **fields: Any) -> Raw:
    """The success of the fallback, which continued the stream and reports the cost of both."""
    call = {"cost": cost, "carried_cost": Decimal(carried), **CONTINUED, **fields}
    return attempt(number, call, seconds, "acme")


def tokens(part: Partition) -> int:
    return sum(window.total_tokens for window in part.ledger.windows.values())


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_cut_stream_that_a_fallback_continued_is_billed_once(step: int, restarted: bool) -> None:
    part = Partition().take(cut())
    if restarted:
        part.restart()
    part.take(continued(), step=step)
    assert part.cost == Decimal(WHOLE)
    assert tokens(part) == 99
    assert [Decimal(str(one["cost_usd"])) for one in part.enriched] == [Decimal(PARTIAL), Decimal(OWN)]
    assert part.enriched[1]["note"] == "0.00209 USD of failed attempts is billed with them"


def test_one_batch_with_both_is_billed_like_two_batches() -> None:
    part = Partition().take(cut(), continued())
    assert (part.cost, tokens(part)) == (Decimal(WHOLE), 99)


def test_copies_of_both_are_duplicates_at_the_same_cost() -> None:
    part = Partition().take(cut(), continued()).take(cut(), continued()).take(continued(), cut())
    assert (part.cost, part.decisions["duplicate"]) == (Decimal(WHOLE), 4)
    assert part.rejected == []


@pytest.mark.parametrize("step", [1, 1000])
def test_an_attempt_that_arrives_after_the_success_that_carries_it_is_counted_and_not_billed(step: int) -> None:
    part = Partition().take(continued(), cut(), cut(), step=step)
    assert (part.cost, tokens(part)) == (Decimal(WHOLE), 99)
    assert part.decisions == {"billable": 1, "carried": 1, "duplicate": 1}
    logged = part.enriched[1]
    assert (logged["decision"], logged.get("part", ""), Decimal(str(logged["cost_usd"]))) == (
        "carried",
        "",
        Decimal(PARTIAL),
    )


def test_an_attempt_that_came_without_a_cost_first_is_carried_too() -> None:
    part = Partition().take(cut(cost="0")).take(continued()).take(cut()).take(cut())
    assert (part.cost, part.decisions["carried"], part.decisions["duplicate"]) == (Decimal(WHOLE), 1, 1)
    part.restart()
    assert part.take(cut()).decisions["duplicate"] == 2


def test_without_the_attempt_the_success_is_billed_whole() -> None:
    assert Partition().take(continued()).cost == Decimal(WHOLE)


def test_an_attempt_without_such_a_success_is_billed() -> None:
    part = Partition().take(cut(), attempt(2, {"cost": OWN}, 3, "acme"))
    assert part.cost == Decimal(WHOLE)
    assert part.decisions == {"failed_with_cost": 1, "billable": 1}


@pytest.mark.parametrize("order", [*permutations(range(3))])
@pytest.mark.parametrize("step", [1, 1000])
def test_two_cuts_of_one_call_are_billed_once_in_any_order(order: tuple[int, ...], step: int) -> None:
    records = (cut(), cut(3, seconds=1, cost="0.001"), continued(cost="0.00559", carried="0.00309"))
    part = Partition().take(*(records[place] for place in order), step=step)
    assert part.cost == Decimal("0.00559")


ORDINARY = {"cost": "0.001", "prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
@pytest.mark.parametrize("seconds", [0, 2])
def test_an_attempt_that_the_success_does_not_carry_is_billed_beside_it(order: tuple[int, ...], seconds: int) -> None:
    """An ordinary retry: LiteLLM adds its cost to no other call."""
    records = (cut(3, seconds=seconds, **ORDINARY), cut(seconds=1), continued())
    part = Partition().take(*(records[place] for place in order))
    assert (part.cost, tokens(part)) == (Decimal("0.00559"), 1149)


def test_earlier_failures_under_the_same_call_id_keep_their_cost_and_tokens() -> None:
    earlier = [cut(10 + number, seconds=-100 + number, **ORDINARY) for number in range(3)]
    part = Partition().take(*earlier, cut(), continued())
    assert (part.cost, tokens(part)) == (Decimal("0.00759"), 3 * 1050 + 99)


def test_no_more_is_absorbed_than_the_success_carries() -> None:
    """Concurrent calls under one id: a failure that ended before the success, and arrives after it, is not carried."""
    part = Partition().take(cut(), continued(), cut(3, seconds=1, **ORDINARY))
    assert part.cost == Decimal("0.00559")


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_a_failed_attempt_that_carries_an_earlier_one_is_billed_once(order: tuple[int, ...]) -> None:
    second = cut(3, seconds=1, cost="0.0025", carried_cost=Decimal("0.001"))
    records = (cut(cost="0.001"), second, continued(cost="0.0055", carried="0.0025"))
    assert Partition().take(*(records[place] for place in order)).cost == Decimal("0.0055")


_MILLS = st.integers(1, 5).map(lambda mills: Decimal(mills) / 1000)


@given(st.lists(st.tuples(_MILLS, st.booleans()), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_never_less_than_owed_is_billed_and_never_more_than_was_reported(
    attempts: list[tuple[Decimal, bool]], random: Random
) -> None:
    """`owed`: the success and the attempts that it does not carry, whatever arrives first."""
    carried = sum((cost for cost, is_carried in attempts if is_carried), Decimal(0))
    whole = Decimal(OWN) + carried
    success = continued(100, seconds=50, cost=str(whole), carried=str(carried))
    failures = [cut(number, seconds=number, cost=str(cost)) for number, (cost, _) in enumerate(attempts)]
    owed = whole + sum(cost for cost, is_carried in attempts if not is_carried)
    reported = whole + sum(cost for cost, _ in attempts)
    records = [*failures, success]
    random.shuffle(records)
    assert owed <= Partition().take(*records).cost <= reported
    if len({is_carried for _, is_carried in attempts}) == 1:
        assert Partition().take(*records).cost == owed


@given(st.lists(st.tuples(_MILLS, st.booleans()), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_attempts_that_carry_all_earlier_ones_or_none_are_billed_once_in_any_order(
    attempts: list[tuple[Decimal, bool]], random: Random
) -> None:
    """The success carries all of them. Earlier an attempt was billed twice that came after those that it carries itself."""
    before = [Decimal(0), *accumulate(cost for cost, _ in attempts)]
    records = [continued(100, seconds=50, cost=str(Decimal(OWN) + before[-1]), carried=str(before[-1]))]
    for number, (own, carries) in enumerate(attempts):
        carried = before[number] if carries else Decimal(0)
        records.append(cut(number, seconds=number, cost=str(own + carried), carried_cost=carried))
    random.shuffle(records)
    assert Partition().take(*records, step=1).cost == Decimal(OWN) + before[-1]


@given(st.lists(st.tuples(_MILLS, st.integers(0, 4)), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_never_less_than_what_all_reports_add_up_to_is_billed(
    attempts: list[tuple[Decimal, int]], random: Random
) -> None:
    """Each attempt carries any of the earlier ones, and the success any of them."""
    costs: list[Decimal] = []
    records, owed = [], Decimal(0)
    for number, (own, mask) in enumerate([*attempts, (Decimal(OWN), random.randrange(16))]):
        carried = sum((cost for place, cost in enumerate(costs) if mask >> place & 1), Decimal(0))
        costs.append(own + carried)
        owed += own
        is_last = number == len(attempts)
        fields = {"cost": str(own + carried), "carried_cost": carried}
        made = (
            attempt(100, {**fields, **CONTINUED}, number, "acme") if is_last else cut(number, seconds=number, **fields)
        )
        records.append(made)
    random.shuffle(records)
    assert Partition().take(*records, step=1).cost >= owed


def test_what_a_call_has_carried_is_not_kept_for_another_call_with_the_same_id() -> None:
    """The reports of both attempts were lost; another call of this id failed in between, and its report comes last."""
    hour = 3600
    first = continued(1, cost="0.0035", carried="0.001")
    second = continued(2, seconds=2 * hour, cost=WHOLE, carried=PARTIAL)
    between = cut(3, seconds=hour, cost="0.003")
    part = Partition().take(first, second, between)
    assert part.cost == Decimal("0.0035") + Decimal(WHOLE) + Decimal("0.003")


def test_a_cut_after_the_success_is_of_another_call_with_the_same_id() -> None:
    part = Partition().take(cut(), continued(), cut(5, seconds=60))
    assert part.cost == Decimal(WHOLE) + Decimal(PARTIAL)
    part.take(continued(6, seconds=63))
    assert part.cost == 2 * Decimal(WHOLE)


def test_attempts_of_another_customer_and_of_another_call_change_nothing() -> None:
    part = Partition().take(cut(customer="other"), cut(4, litellm_call_id="call-y", id="call-y"), continued())
    assert part.cost == Decimal(WHOLE) + 2 * Decimal(PARTIAL)


@pytest.mark.parametrize("carried", ["-1", "1e999999999", "5"])
def test_an_impossible_amount_never_makes_a_call_cheaper_than_its_own_part(carried: str) -> None:
    part = Partition().take(cut(), continued(carried=carried))
    assert part.cost >= Decimal(WHOLE)


def test_failed_calls_that_a_policy_does_not_bill_are_not_carried_over() -> None:
    byok = Partition().take(cut(cost="0"), continued())
    assert byok.cost == Decimal(WHOLE)


def test_a_rate_card_prices_each_token_once() -> None:
    rates = Rates([card(entry(input="1", output="10"))])
    part = Partition()
    fold = Fold(part.policy, "d-t-0-")
    for number, record in enumerate((cut(), continued())):
        record.offset = number
        apply(part.ledger, fold(part.ledger, [record], subscribed, rates=rates), NOON)
    [*windows] = part.ledger.windows.values()
    assert sum(window.billed for window in windows) == (59 + 400) / Decimal(1_000_000)


def test_a_remembered_attempt_has_the_counts_of_tokens_in_their_order() -> None:
    """The changelog stores an attempt by positions."""
    assert FailedAttempt.__struct_fields__[2:] == TOKENS
