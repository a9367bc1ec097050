"""A Stripe event becomes a change of one payment, is ignored, or is refused; unused fields do not matter."""

import pytest

from connectors.credits.stripe_events import StripeEvent, read_event
from schemas.errors import Rejected
from streams.core.payments.payment import Dispute, Payment
from tests.support.stripe_events import body_of, charge, dispute, event, session


def read(*args: object, **options: object) -> StripeEvent:
    return read_event(body_of(event(*args, **options)))  # type: ignore[arg-type]


def test_a_paid_session_is_a_payment_of_its_full_amount() -> None:
    result = read("checkout.session.completed", session("p1", "cs_1", "pi_1", 1234), "evt_1", live=True)
    assert result == StripeEvent(
        "evt_1", "checkout.session.completed", True, "pi_1", "p1", "cs_1", Payment(1234, "usd")
    )


@pytest.mark.parametrize("status", ["unpaid", "no_payment_required", "of a later release"])
def test_an_unpaid_session_is_no_payment(status: str) -> None:
    assert read("checkout.session.completed", session("p1", "cs_1", payment_status=status)).fact is None


def test_the_refunded_amount_is_the_sum_of_all_refunds_of_the_charge() -> None:
    result = read("charge.refunded", charge(250, metadata={"meterbridge_purchase": "p1"}))
    assert (result.fact, result.payment_intent, result.purchase) == (Payment(refunded=250), "pi_1", ""), (
        "only a session says that"
    )


@pytest.mark.parametrize("kind", ["created", "updated", "closed", "funds_withdrawn", "funds_reinstated"])
def test_every_dispute_event_gives_the_disputes_state(kind: str) -> None:
    result = read(f"charge.dispute.{kind}", dispute("under_review", amount=70))
    assert result.fact == Payment(disputes={"dp_1": Dispute(70, "usd", "under_review")})


def test_an_expanded_object_is_read_like_its_id() -> None:
    result = read("charge.refunded", charge(1, intent={"id": "pi_9", "object": "payment_intent"}))  # type: ignore[arg-type]
    assert result.payment_intent == "pi_9"


def test_an_event_about_another_systems_payment_is_ignored() -> None:
    for kind, obj in (
        ("customer.created", {"id": "cus_1"}),
        ("charge.refunded", charge(1, intent=None)),
        ("charge.dispute.created", dispute("lost", intent=None)),
        ("charge.succeeded", {"anything": 1}),
    ):
        assert read(kind, obj).fact is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        body_of({**event("charge.refunded", charge(1)), "id": ""}),
        body_of({**event("charge.refunded", charge(1)), "id": "x" * 256}),
        body_of({**event("charge.refunded", charge(1)), "livemode": "no"}),
        body_of(event("charge.refunded", charge(1, amount_refunded="1"))),
        body_of(event("charge.refunded", charge(1, amount_refunded=1.5))),
        body_of(event("charge.refunded", charge(1, amount_refunded=None))),
        body_of(event("charge.refunded", charge(1, amount_refunded=-1))),
        body_of(event("charge.refunded", charge(1, amount_refunded=1 << 70))),
        body_of(event("charge.refunded", charge(1, intent=7))),  # type: ignore[arg-type]
        body_of(event("charge.refunded", charge(1, intent="p" * 256))),
        body_of(event("charge.dispute.created", {"id": "dp_1"})),
        body_of(event("checkout.session.completed", session("p", "s", amount_total="1"))),
    ],
    ids=range(17),
)
def test_an_event_of_another_form_is_refused_and_never_guessed(body: bytes) -> None:
    with pytest.raises(Rejected, match="stripe_event_unreadable"):
        read_event(body)
