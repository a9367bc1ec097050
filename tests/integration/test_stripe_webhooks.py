"""Stripe's webhooks with real Postgres: a payment gives its credits once, with repeats, delays or any order of events."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from tests.support.accounts import API, as_role, owned_database
from tests.support.credit_api import CreditApi, credit_api
from tests.support.credits import account, balanced, give, take
from tests.support.database import rows
from tests.support.kafka import Kafka
from tests.support.server import BEARER, running_server, settings_for
from tests.support.stripe_events import SECRET, body_of, charge, dispute, event, session, signed

ADA = "user:ada"


@pytest.fixture
async def api(url: str) -> AsyncIterator[CreditApi]:
    async with credit_api(url) as running:
        yield running


async def movements(url: str) -> list[tuple[str, Decimal]]:
    query = "SELECT transaction_type, amount FROM credit_transactions ORDER BY created_at"
    return [(kind, amount) for kind, amount in await rows(url, query)]


async def outcomes(url: str) -> list[str]:
    return [outcome for (outcome,) in await rows(url, "SELECT outcome FROM stripe_events ORDER BY received_at")]


async def test_a_payment_gives_the_credits_of_its_package_with_the_bonus(api: CreditApi, url: str) -> None:
    purchase = await api.buy(package_id=2)
    assert await api.balance(ADA) == 0
    assert await api.pay(purchase, amount=5000) == "applied"
    assert await api.balance(ADA) == Decimal("52.50")
    [row] = (await api.ask("GET", "transactions", "ada"))["transactions"]
    assert (row["transaction_type"], row["amount"], row["balance_after"]) == ("purchase", "52.5", "52.5")
    assert (row["payment_method"], row["stripe_transaction_id"], row["package_id"]) == ("stripe", "pi_1", 2)
    assert row["metadata"]["purchase_id"] == purchase["purchase_id"]
    assert api.counted == {"applied": 1}
    await balanced(url)


async def test_a_repeated_event_changes_nothing_also_at_the_same_moment(api: CreditApi, url: str) -> None:
    purchase = await api.buy()
    paid = event("checkout.session.completed", session(purchase["purchase_id"], purchase["session_id"]))
    result = await asyncio.gather(*(api.deliver(paid) for _ in range(12)))
    assert sorted(result) == ["applied"] + ["repeated"] * 11
    other_id = event("checkout.session.async_payment_succeeded", paid["data"]["object"])
    assert await api.deliver(other_id) == "unchanged"
    assert await movements(url) == [("purchase", 10)]
    assert await outcomes(url) == ["applied", "unchanged"]


async def test_a_payment_that_takes_days_is_credited_when_it_has_succeeded(api: CreditApi, url: str) -> None:
    purchase = await api.buy()
    assert await api.pay(purchase, payment_status="unpaid") == "ignored"
    assert await movements(url) == []
    paid = session(purchase["purchase_id"], purchase["session_id"])
    assert await api.deliver(event("checkout.session.async_payment_succeeded", paid)) == "applied"
    assert await movements(url) == [("purchase", 10)]


@pytest.mark.parametrize("kind", ["expired", "async_payment_failed"])
async def test_a_session_that_ends_without_a_payment_is_recorded(api: CreditApi, url: str, kind: str) -> None:
    purchase = await api.buy()
    over = session(purchase["purchase_id"], purchase["session_id"], None, payment_status="unpaid")
    assert await api.deliver(event(f"checkout.session.{kind}", over)) == "noted"
    [(ending,)] = await rows(url, "SELECT ending FROM credit_purchases")
    assert ending == {"expired": "expired", "async_payment_failed": "failed"}[kind]
    assert await movements(url) == []


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"amount_total": 999}, "paid 999 usd, offered for 1000 usd"),
        ({"amount_total": 1}, "paid 1 usd, offered for 1000 usd"),
        ({"amount_total": 100_000}, "paid 100000 usd, offered for 1000 usd"),
        ({"currency": "jpy"}, "paid 1000 jpy, offered for 1000 usd"),
        ({"amount_total": None, "currency": None}, "paid 0 , offered for 1000 usd"),
    ],
)
async def test_a_wrong_amount_is_refused_counted_and_listed_and_never_credited(
    api: CreditApi, url: str, changes: dict[str, Any], detail: str
) -> None:
    purchase = await api.buy()
    assert await api.pay(purchase, **changes) == "wrong_amount"
    assert await api.pay(purchase) == "wrong_amount", "a second amount for one payment is a contradiction"
    assert await movements(url) == []
    assert api.counted == {"wrong_amount": 2}
    listed = (await api.ask("GET", "refused-payments"))["payments"]
    assert [one["reason"] for one in listed] == ["wrong_amount"] * 2
    first = listed[1]
    assert (first["detail"], first["payment_intent"], first["account"]) == (detail, "pi_1", ADA)
    assert first["purchase_id"] == purchase["purchase_id"]


async def test_a_payment_that_does_not_fit_the_purchase_is_refused(api: CreditApi, url: str) -> None:
    mine, hers = await api.buy("ada"), await api.buy("bob", package_id=4)
    assert await api.pay(mine | {"session_id": "cs_test_forged"}) == "other_session"
    assert await api.pay({**hers, "session_id": mine["session_id"]}, amount=50_000) == "other_session"
    assert await api.pay({"purchase_id": str(uuid4()), "session_id": "cs_test_x"}) == "unknown_purchase"
    test_mode = session(mine["purchase_id"], mine["session_id"])
    assert await api.deliver(event("checkout.session.completed", test_mode, live=True)) == "wrong_mode"
    assert await api.pay(mine, intent=None) == "no_payment"  # type: ignore[arg-type]
    assert await movements(url) == []
    assert len((await api.ask("GET", "refused-payments"))["payments"]) == 5
    assert await api.pay(mine) == "applied"


async def test_a_payment_belongs_to_one_purchase(api: CreditApi, url: str) -> None:
    mine, hers = await api.buy("ada"), await api.buy("bob")
    assert await api.pay(mine) == "applied"
    assert await api.pay(hers) == "other_session", "the same payment again"
    named = charge(1000, metadata={"meterbridge_purchase": hers["purchase_id"]})
    assert await api.deliver(event("charge.refunded", named)) == "applied"
    assert await movements(url) == [("purchase", 10), ("refund", -10)]
    assert await account(url, ADA) == (0, 0)


async def test_concurrent_events_about_one_payment_wait_for_each_other(api: CreditApi, url: str) -> None:
    for number in range(5):
        intent, purchase = f"pi_{number}", await api.buy()
        paid = session(purchase["purchase_id"], purchase["session_id"], intent)
        await asyncio.gather(
            api.deliver(event("checkout.session.completed", paid)),
            *(api.deliver(event("charge.refunded", charge(refunded, intent))) for refunded in (100, 300, 200)),
            api.deliver(event("charge.dispute.created", dispute("needs_response", intent, 700))),
            api.deliver(event("charge.dispute.closed", dispute("won", intent, 700))),
        )
    assert await api.balance(ADA) == 35
    await balanced(url)


async def test_an_event_about_other_sales_is_ignored(api: CreditApi, url: str) -> None:
    """A Stripe account may sell other things too."""
    assert (
        await api.deliver(event("checkout.session.completed", session("", "cs_test_other", metadata={}))) == "ignored"
    )
    assert await api.deliver(event("customer.created", {"id": "cus_1", "object": "customer"})) == "ignored"
    assert await api.deliver(event("charge.refunded", charge(100, intent=None))) == "ignored"
    assert await api.deliver(event("charge.refunded", charge(100, intent="pi_foreign"))) == "waiting"
    assert await movements(url) == []
    assert (await api.ask("GET", "refused-payments"))["payments"] == []


async def test_refunds_remove_credits_in_proportion_and_in_any_order(api: CreditApi, url: str) -> None:
    for number, order in enumerate(permutations(("paid", 250, 500))):
        intent, purchase = f"pi_{number}", await api.buy()
        before = await api.balance(ADA)
        for step in order:
            if step == "paid":
                await api.pay(purchase, intent)
            else:
                await api.deliver(event("charge.refunded", charge(int(step), intent)))
        assert await api.balance(ADA) - before == 5, order
    await balanced(url)


async def test_a_refund_keeps_the_credits_of_other_payments_and_a_bonus(api: CreditApi, url: str) -> None:
    await api.pay(await api.buy(), "pi_1")
    await api.pay(await api.buy(package_id=2), "pi_2", 5000)
    await give(url, ADA, "3", "bonus", datetime.now(UTC) + timedelta(days=1))
    assert await api.deliver(event("charge.refunded", charge(5000, "pi_2"))) == "applied"
    left = await rows(url, "SELECT remaining FROM credit_grants ORDER BY grant_id")
    assert left == [(10,), (0,), (3,)]
    await balanced(url)


async def test_a_refund_beyond_the_balance_becomes_overdraft(api: CreditApi, url: str) -> None:
    await api.pay(await api.buy())
    assert (await take(url, "ada", "8"))[0]
    assert await api.deliver(event("charge.refunded", charge(1000))) == "applied"
    assert await account(url, ADA) == (0, 8)
    assert await movements(url) == [("purchase", 10), ("debit", -8), ("refund", -10)]
    await balanced(url)


async def test_a_dispute_removes_the_credits_and_a_won_one_returns_them(api: CreditApi, url: str) -> None:
    await api.pay(await api.buy())
    assert await api.deliver(event("charge.dispute.created", dispute("needs_response"))) == "applied"
    assert await api.balance(ADA) == 0
    assert await api.deliver(event("charge.dispute.updated", dispute("under_review"))) == "unchanged"
    assert await api.deliver(event("charge.dispute.closed", dispute("won"))) == "applied"
    assert await api.balance(ADA) == 10
    assert await api.deliver(event("charge.dispute.created", dispute("needs_response"))) == "unchanged", "late"
    assert await movements(url) == [("purchase", 10), ("refund", -10), ("adjustment", 10)]


async def test_a_dispute_that_arrives_before_its_payment_waits_for_it(api: CreditApi, url: str) -> None:
    purchase = await api.buy()
    assert await api.deliver(event("charge.dispute.closed", dispute("lost"))) == "waiting"
    assert await api.pay(purchase) == "unchanged"
    assert await movements(url) == []


async def test_an_org_can_buy_too(api: CreditApi, url: str) -> None:
    purchase = await api.buy("of_org_a", body={"account": "org:org_a"})
    assert await api.pay(purchase) == "applied"
    assert await account(url, "org:org_a") == (10, 0)


async def test_a_package_that_changes_meanwhile_is_sold_as_it_was_offered(api: CreditApi, url: str) -> None:
    purchase = await api.buy()
    await rows(url, "UPDATE credit_packages SET price_usd = 99, credits = 1, active = false WHERE package_id = 1")
    assert await api.pay(purchase) == "applied"
    assert await api.balance(ADA) == 10


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Stripe-Signature": ""},
        {"Stripe-Signature": "t=1,v1=00"},
        {"Stripe-Signature": "nonsense"},
        {"Stripe-Signature": "v1=" + "0" * 64},
        {"Stripe-Signature": "t=NOW"},
        {"Stripe-Signature": "t=NOW,v1=\xe9"},
    ],
    ids=str,
)
async def test_an_event_that_stripe_did_not_sign_is_refused_and_counted(
    api: CreditApi, url: str, headers: dict[str, str]
) -> None:
    purchase = await api.buy()
    body = body_of(event("checkout.session.completed", session(purchase["purchase_id"], purchase["session_id"])))
    now = str(int(time.time()))
    encoded = {name: value.replace("NOW", now).encode("latin-1") for name, value in headers.items()}
    answer = await api.house.http.post("/webhooks/stripe", content=body, headers=encoded)
    assert answer.status_code == 400
    reason = answer.json()["reason"]
    assert reason in ("unsigned", "bad_signature")
    assert api.counted == {reason: 1}
    assert await outcomes(url) == []
    assert await movements(url) == []


async def test_a_signature_is_valid_for_its_body_its_secret_and_five_minutes(api: CreditApi, url: str) -> None:
    purchase = await api.buy()
    paid = event("checkout.session.completed", session(purchase["purchase_id"], purchase["session_id"]))
    body, now = body_of(paid), time.time()
    other = body_of(event("checkout.session.completed", session("x", "y")))
    for headers in (signed(other), signed(body, "whsec_" + "of-somebody"), signed(body, at=now - 310), signed(b"")):
        assert await api.deliver(paid, 400, **headers) == "bad_signature"
    assert await movements(url) == []
    assert await api.deliver(paid, **signed(body, at=now - 290)) == "applied"
    assert await api.deliver(paid, **signed(body, "whsec_" + "an-old-one")) == "repeated", "while a secret is rotated"
    assert api.counted == {"bad_signature": 4, "applied": 1, "repeated": 1}


async def test_without_a_secret_no_event_is_accepted(url: str) -> None:
    async with credit_api(url, secrets=()) as api:
        assert await api.deliver(event("charge.refunded", charge(1)), 501) == "no_stripe_secret"


async def test_a_signed_event_that_cannot_be_read_is_listed_and_applied_once_it_can(api: CreditApi, url: str) -> None:
    """Stripe sends it again for three days; a later release may be able to read it."""
    purchase = await api.buy()
    paid = event("checkout.session.completed", session(purchase["purchase_id"], purchase["session_id"]), "evt_odd")
    odd = {**paid, "data": {"object": {**paid["data"]["object"], "amount_total": "1000"}}}
    for _ in range(2):
        assert await api.deliver(odd, 422) == "stripe_event_unreadable"
    [listed] = (await api.ask("GET", "refused-payments"))["payments"]
    assert (listed["event_id"], listed["reason"]) == ("evt_odd", "stripe_event_unreadable")
    assert await api.deliver(paid) == "applied"
    assert await api.deliver(odd, 422) == "stripe_event_unreadable"
    assert await outcomes(url) == ["applied"], "what was applied stays so"
    for body in (b"[]", b"{}", b"\xff", b"null"):
        answer = await api.house.http.post("/webhooks/stripe", content=body, headers=signed(body))
        assert answer.status_code in (400, 422), body


async def test_a_body_that_is_too_large_is_not_read(api: CreditApi) -> None:
    answer = await api.house.http.post("/webhooks/stripe", content=b" " * (1 << 20) + b"{}", headers=signed(b"x"))
    assert answer.status_code == 413


async def test_the_apis_role_is_sufficient_to_sell_and_credit(postgres_url: str) -> None:
    async with owned_database(postgres_url) as url, credit_api(as_role(url, API)) as api:
        purchase = await api.buy(key="k1")
        assert await api.buy(key="k1") == purchase
        assert await api.pay(purchase) == "applied"
        assert await api.deliver(event("charge.refunded", charge(500))) == "applied"
        created = await api.ask("POST", "authorize", "plugin", json={"user": "ada", "estimate": "1", "call_id": "c"})
        assert (await api.ask("DELETE", f"authorize/{created['reservation_id']}", "plugin"))["released"]
        await api.ask("POST", "debit", "plugin", key="k", json={"user": "ada", "cost": "1"})
        assert await api.balance(ADA) == 4
        assert len((await api.ask("GET", "packages", "ada"))["packages"]) == 4
        assert len((await api.ask("GET", "transactions", "ada"))["transactions"]) == 3
        assert (await api.ask("GET", "refused-payments"))["payments"] == []
        await balanced(url)


async def test_a_running_server_credits_a_payment_and_counts_it(kafka: Kafka, topic_prefix: str, url: str) -> None:
    settings = settings_for(
        kafka,
        topic_prefix,
        database_url=SecretStr(url),
        stripe_webhook_secret=SECRET,
        oidc_user_claim="litellm_user_id",
    )
    offered = """
        INSERT INTO credit_purchases (account, package_id, name, credits, price, currency, contents, created_by, session_id, live)
        VALUES ('user:ada', 1, 'Starter', 10, 1000, 'usd', sha256('a'), 'user ada', 'cs_test_1', false) RETURNING purchase_id
    """
    [(purchase,)] = await rows(url, offered)
    body = body_of(event("checkout.session.completed", session(str(purchase), "cs_test_1")))
    async with running_server(settings, ("api",)) as server:
        result = [await server.http.post("/webhooks/stripe", content=body, headers=signed(body)) for _ in range(2)]
        assert [one.json()["status"] for one in result] == ["applied", "repeated"]
        forged = await server.http.post("/webhooks/stripe", content=body, headers=signed(body, "whsec_" + "of-nobody"))
        assert (forged.status_code, forged.json()["reason"]) == (400, "bad_signature")
        shown = await server.http.get("/api/v1/credits/balance", params={"user": "ada"}, headers=BEARER)
        assert shown.json()["balance"] == "10"
        selling = await server.http.post(
            "/api/v1/credits/purchase",
            json={
                "user": "ada",
                "package_id": 1,
                "success_url": "https://a.example",
                "cancel_url": "https://a.example",
            },
            headers=BEARER,
        )
        assert (selling.status_code, selling.json()["reason"]) == (501, "not_configured")
        text = (await server.http.get("/metrics/prometheus")).text
    for outcome in ("applied", "repeated", "bad_signature"):
        assert f'meterbridge_stripe_events_total{{outcome="{outcome}"}} 1.0' in text
