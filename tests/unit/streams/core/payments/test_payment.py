"""The worth of a payment: neither the order of events nor a repeat changes it, and it is never more than the offer."""

from decimal import Decimal
from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.payments.payment import Dispute, Offer, Payment, credits_due, fits, merged_payment

OFFER = Offer(Decimal(120), 10_000, "usd")
PAID = Payment(10_000, "usd")
STATUSES = (
    *("warning_needs_response", "warning_under_review", "warning_closed", "prevented"),
    *("needs_response", "under_review", "won", "lost", "of a later release"),
)


def refund(amount: int) -> Payment:
    return Payment(refunded=amount)


def dispute(status: str, amount: int = 10_000, name: str = "dp_1", currency: str = "usd") -> Payment:
    return Payment(disputes={name: Dispute(amount, currency, status)})


def due(*facts: Payment) -> Decimal:
    return credits_due(reduce(merged_payment, facts, Payment()), OFFER)


facts = st.one_of(
    st.just(PAID),
    st.builds(Payment, st.integers(1, 20_000), st.sampled_from(("usd", "eur"))),
    st.builds(refund, st.integers(0, 12_000)),
    st.builds(
        dispute,
        st.sampled_from(STATUSES),
        st.integers(0, 12_000),
        st.sampled_from(("dp_1", "dp_2")),
        st.sampled_from(("usd", "eur")),
    ),
)


@given(st.lists(facts, max_size=6), st.data())
def test_neither_order_nor_repeats_change_what_a_payment_is_worth(told: list[Payment], data: st.DataObject) -> None:
    """Only two different paid amounts contradict each other; then the payment is worth nothing, in every order."""
    again = data.draw(st.permutations(told + told[:3]))
    assert due(*again) == due(*told)


@given(st.lists(facts, max_size=8))
def test_a_payment_is_worth_between_nothing_and_the_offer(told: list[Payment]) -> None:
    assert Decimal(0) <= due(*told) <= OFFER.credits


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_larger_refund_never_leaves_more_credits(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert due(PAID, refund(large)) <= due(PAID, refund(small))


@given(st.decimals("0.000001", "999999999", places=6), st.integers(1, 10**11), st.integers(0, 10**11))
def test_the_remaining_credits_are_proportional_and_never_rounded_up(
    credits_: Decimal, price: int, refunded: int
) -> None:
    left = credits_due(Payment(price, "usd", refunded), Offer(credits_, price, "usd"))
    if refunded == 0:
        assert left == credits_
    exact = credits_ * max(0, price - refunded)
    assert left * price <= exact
    assert exact - left * price < Decimal("0.000001") * price


def test_a_refund_that_arrives_before_the_payment_counts() -> None:
    assert due(refund(10_000)) == 0
    for order in permutations((PAID, refund(2_500), refund(5_000))):
        assert due(*order) == 60


@pytest.mark.parametrize(
    ("statuses", "worth"),
    [
        (("needs_response",), 0),
        (("needs_response", "under_review"), 0),
        (("needs_response", "won"), 120),
        (("won", "needs_response"), 120),
        (("lost",), 0),
        (("needs_response", "lost"), 0),
        (("warning_needs_response",), 120),
        (("warning_needs_response", "needs_response"), 0),
        (("needs_response", "warning_needs_response"), 0),
        (("warning_closed",), 120),
        (("of a later release",), 0),
    ],
)
def test_a_dispute_removes_the_credits_while_the_bank_has_the_money(statuses: tuple[str, ...], worth: int) -> None:
    assert due(PAID, *map(dispute, statuses)) == worth


def test_a_partial_dispute_and_one_in_another_currency() -> None:
    assert due(PAID, dispute("lost", 2_500)) == 90
    assert due(PAID, dispute("lost", 1, currency="eur")) == 0, "what cannot be compared takes all"
    assert due(PAID, refund(9_000), dispute("lost", 9_000)) == 0, "never below nothing"


@pytest.mark.parametrize("wrong", [Payment(9_999, "usd"), Payment(10_001, "usd"), Payment(10_000, "eur"), Payment()])
def test_a_payment_that_differs_from_the_offer_is_worth_nothing(wrong: Payment) -> None:
    assert not fits(wrong, OFFER)
    assert credits_due(wrong, OFFER) == 0


def test_upper_case_makes_no_difference_in_a_currency() -> None:
    assert credits_due(Payment(10_000, "USD"), OFFER) == 120


def test_two_different_paid_amounts_for_one_payment_are_worth_nothing() -> None:
    assert due(PAID, Payment(20_000, "usd")) == due(Payment(20_000, "usd"), PAID) == 0
    assert due(PAID, Payment(20_000, "usd"), PAID) == 0
