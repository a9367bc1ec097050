"""The credit endpoints with real Postgres: each caller sees and moves only the credits it may, and nothing is spent
twice.
"""

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.support.credit_api import CREDITS, URLS, CreditApi, credit_api
from tests.support.credits import account, balanced, give, reserve, take
from tests.support.database import rows


@pytest.fixture
async def api(url: str) -> AsyncIterator[CreditApi]:
    async with credit_api(url) as running:
        yield running


def estimate(amount: str, call_id: str = "", **more: Any) -> dict[str, Any]:
    return {"json": {"estimate": amount, "call_id": call_id or str(uuid4()), "user": "ada"} | more}


async def test_a_balance_is_exact_text_with_the_reserved_amount(api: CreditApi, url: str) -> None:
    assert await api.ask("GET", "balance", "ada") == {
        "account": "user:ada",
        "balance": "0",
        "reserved": "0",
        "available": "0",
        "overdraft": "0",
        "tier": None,
        "currency": "USD",
    }
    await give(url, "user:ada", "10.000000000001")
    await reserve(url, "user:ada", "2.5", "call-1")
    result = await api.ask("GET", "balance", "ada")
    assert (result["balance"], result["reserved"], result["available"]) == ("10.000000000001", "2.5", "7.500000000001")
    assert result["tier"] == "free"


async def test_transactions_are_listed_page_by_page_with_the_latest_first(api: CreditApi, url: str) -> None:
    for number in range(5):
        await give(url, "user:ada", str(number + 1))
    await give(url, "user:bob", "99")
    first = await api.ask("GET", "transactions", "ada", params={"limit": 2, "offset": 0})
    last = await api.ask("GET", "transactions", "ada", params={"limit": 2, "offset": 4})
    assert ([one["amount"] for one in first["transactions"]], first["has_more"]) == (["5", "4"], True)
    assert ([one["amount"] for one in last["transactions"]], last["has_more"]) == (["1"], False)
    default = await api.ask("GET", "transactions", "ada")
    assert (default["limit"], default["offset"], len(default["transactions"])) == (20, 0, 5)
    for wrong in ({"limit": 0}, {"limit": 201}, {"offset": -1}, {"limit": "all"}):
        assert (await api.ask("GET", "transactions", "ada", 422, params=wrong))["reason"] == "invalid_fields"


async def test_packages_that_are_not_sold_are_not_listed(api: CreditApi, url: str) -> None:
    await rows(url, "UPDATE credit_packages SET active = false WHERE name = 'Value'")
    packages = (await api.ask("GET", "packages", "bob"))["packages"]
    assert [(one["name"], one["credits"], one["bonus_credits"], one["price"]) for one in packages] == [
        ("Starter", "10", "0", "10"),
        ("Pro", "100", "10", "100"),
        ("Enterprise", "500", "75", "500"),
    ]


#: Caller, account, and the status of seeing it, buying for it, and reserving from it.
SEEN = [
    ("ada", None, 200, 201, 403),
    ("ada", "user:ada", 200, 201, 403),
    ("ada", "user:bob", 403, 403, 403),
    ("ada", "org:org_a", 403, 403, 403),
    ("bob", "user:ada", 403, 403, 403),
    ("reader", "user:ada", 200, 403, 403),
    ("reader", "org:org_a", 200, 403, 403),
    ("reader", None, 422, 403, 403),
    ("plugin", "user:ada", 403, 201, 402),
    ("of_org_a", "org:org_a", 200, 201, 402),
    ("of_org_a", "org:org_b", 403, 403, 403),
    ("of_org_a", "user:ada", 403, 403, 403),
    ("nothing", "user:ada", 403, 403, 403),
    ("nothing", None, 403, 403, 403),
    ("root", "user:nobody", 200, 201, 402),
    ("unknown", "user:ada", 401, 401, 401),
]


@pytest.mark.parametrize(("caller", "named", "seen", "bought", "reserved"), SEEN)
async def test_each_caller_sees_and_moves_only_the_credits_that_it_may(
    api: CreditApi, caller: str, named: str | None, seen: int, bought: int, reserved: int
) -> None:
    """A user's token never gives access to another user's account."""
    result = {} if named is None else {"account": named}
    for path in ("balance", "transactions"):
        await api.ask("GET", path, caller, seen, params=result)
    await api.ask("POST", "purchase", caller, bought, json={"package_id": 1, **URLS, **result})
    await api.ask("POST", "authorize", caller, reserved, json={"estimate": "1", "call_id": "c", **result})
    debited = await api.ask("POST", "debit", caller, reserved, key="k", json={"cost": "1", **result})
    if reserved == 402:
        assert debited["reason"] == "insufficient_credits"


async def test_refused_payments_are_shown_only_to_a_caller_for_all_orgs(api: CreditApi) -> None:
    for caller, status in (("reader", 200), ("root", 200), ("ada", 403), ("plugin", 403), ("of_org_a", 403)):
        await api.ask("GET", "refused-payments", caller, status)


async def test_a_debit_is_done_once_for_each_key(api: CreditApi, url: str) -> None:
    await give(url, "user:ada", "10")
    await give(url, "user:bob", "10")
    wanted = {"json": {"user_id": "ada", "cost": "0.000000000001", "provider": "openai", "model": "gpt-5"}}
    result = await asyncio.gather(*(api.ask("POST", "debit", "plugin", key="k1", **wanted) for _ in range(10)))
    assert {one["new_balance"] for one in result} == {"9.999999999999"}
    assert len({one["transaction_id"] for one in result}) == 1
    wanted["json"]["cost"] = "5"
    conflict = await api.ask("POST", "debit", "plugin", 409, key="k1", **wanted)
    assert conflict["reason"] == "idempotency_conflict"
    wanted["json"]["user_id"] = "bob"
    assert (await api.ask("POST", "debit", "plugin", key="k1", **wanted))["new_balance"] == "5", (
        "a key of another account"
    )
    assert await account(url, "user:ada") == (Decimal("9.999999999999"), 0)
    [row] = (await api.ask("GET", "transactions", "ada", params={"limit": 1}))["transactions"]
    assert (row["transaction_type"], row["provider"], row["model"]) == ("debit", "openai", "gpt-5")
    assert row["metadata"]["debited_by"] == "key plugin"
    await balanced(url)


async def test_a_key_of_one_account_is_never_a_key_of_another(api: CreditApi, url: str) -> None:
    """Earlier `user:a` with `b:c` and `user:a:b` with `c` had one key, and the second debit was a conflict."""
    for name, key in (("a", "b:c"), ("a:b", "c"), ("a:b:c", "d"), ("a", "b:c:d")):
        await give(url, f"user:{name}", "5")
        debited = await api.ask("POST", "debit", "plugin", key=key, json={"user": name, "cost": "1"})
        assert debited["account"] == f"user:{name}"
    assert await rows(url, "SELECT count(DISTINCT idempotency_key) FROM credit_transactions WHERE amount < 0") == [(4,)]


async def test_a_purchase_for_an_impossible_account_name_is_refused_before_it_is_paid(api: CreditApi, url: str) -> None:
    """In an earlier version it was sold, and its payment could never be credited."""
    refused = await api.ask("POST", "purchase", "root", 422, json={"package_id": 1, "user": "\U00020000" * 250} | URLS)
    assert refused["reason"] == "row_refused" and not api.stripe.orders


async def test_a_debit_without_a_key_or_beyond_the_balance_changes_nothing(api: CreditApi, url: str) -> None:
    await give(url, "user:ada", "1")
    body = {"json": {"user": "ada", "cost": "1.000000000001"}}
    assert (await api.ask("POST", "debit", status=400, **body))["reason"] == "idempotency_key_needed"
    for key in ("", "k" * 256):
        assert (await api.ask("POST", "debit", status=400, key=key, **body))["reason"] == "bad_idempotency_key"
    assert (await api.ask("POST", "debit", status=402, key="k", **body))["reason"] == "insufficient_credits"
    assert await account(url, "user:ada") == (1, 0)
    assert json.loads(api.house.topic.lines[-1].after) == {"account": "user:ada", "debit": "1.000000000001", "key": "k"}


async def test_a_debit_whose_audit_line_cannot_be_written_is_not_made(api: CreditApi, url: str) -> None:
    await give(url, "user:ada", "1")
    api.house.topic.away = True
    await api.ask("POST", "debit", status=503, key="k", json={"user": "ada", "cost": "1"})
    assert await account(url, "user:ada") == (1, 0)


async def test_a_refusal_for_an_account_that_never_had_credits_says_so(api: CreditApi, url: str) -> None:
    """In an earlier version a misspelt account looked like one without credits left."""
    await give(url, "user:ada", "1")
    body = {"cost": "2", "user": "adda"}
    for user, says in (("adda", "no credits were ever granted to the account"), ("ada", "do")):
        debited = await api.ask("POST", "debit", status=402, key="k", json={**body, "user": user})
        reserved = await api.ask("POST", "authorize", status=402, json={"user": user, "estimate": "2", "call_id": "c"})
        assert {debited["reason"], reserved["reason"]} == {"insufficient_credits"}
        assert says in debited["detail"] and says in reserved["detail"]
        tier = (await api.ask("GET", "balance", params={"account": f"user:{user}"}))["tier"]
        assert (tier is None) == (user == "adda")


async def test_an_amount_is_plain_digits_as_text(api: CreditApi) -> None:
    wrong = ["", "-1", "+1", "1e3", "NaN", "Infinity", "1_0", " 1", "01", "1.", ".5", "٣", "0", "0.0"]
    for amount in (1, 0.1, None, *wrong, "1" * 13, "0." + "1" * 13):
        body = {"user": "ada", "cost": amount}
        refused = await api.ask("POST", "debit", status=422, key="k", json=body)
        assert refused["reason"] == "invalid_fields", amount


async def test_an_amount_is_reserved_until_it_is_released(api: CreditApi, url: str) -> None:
    await give(url, "user:ada", "10")
    created = await api.ask("POST", "authorize", "plugin", **estimate("7.25", "call-1"))
    assert (created["authorized"], created["account"], created["available"]) == (True, "user:ada", "2.75")
    again = await api.ask("POST", "authorize", "plugin", **estimate("7.25", "call-1"))
    assert again["reservation_id"] == created["reservation_id"]
    other = await api.ask("POST", "authorize", "plugin", 409, **estimate("7", "call-1"))
    assert other["reason"] == "idempotency_conflict"
    refused = await api.ask("POST", "authorize", "plugin", 402, **estimate("2.750000000001"))
    assert (refused["reason"], refused["available"], refused["account"]) == ("insufficient_credits", "2.75", "user:ada")
    path = f"authorize/{created['reservation_id']}"
    assert (await api.ask("DELETE", path, "plugin"))["released"] is True
    assert (await api.ask("DELETE", path, "plugin"))["released"] is False
    assert (await api.ask("GET", "balance", "ada"))["available"] == "10"
    for unknown in (str(uuid4()), "x"):
        result = await api.ask("DELETE", f"authorize/{unknown}", "plugin", 404)
        assert result["reason"] == "unknown_reservation"


async def test_only_a_caller_who_may_move_the_account_can_release_a_reservation(api: CreditApi, url: str) -> None:
    await give(url, "user:ada", "10")
    created = await api.ask("POST", "authorize", "plugin", **estimate("1"))
    for caller in ("of_org_a", "ada", "reader"):
        await api.ask("DELETE", f"authorize/{created['reservation_id']}", caller, 403)
    assert (await api.ask("GET", "balance", "ada"))["reserved"] == "1"


async def test_a_reservation_expires(api: CreditApi, url: str) -> None:
    await give(url, "user:ada", "10")
    await api.ask("POST", "authorize", **estimate("10", ttl=1))
    await api.ask("POST", "authorize", status=402, **estimate("10"))
    await asyncio.sleep(1.1)
    await api.ask("POST", "authorize", **estimate("10"))
    for ttl in (0, 86_401, 1.5, "60"):
        assert (await api.ask("POST", "authorize", status=422, **estimate("1", ttl=ttl)))["reason"] == "invalid_fields"


async def test_an_allowed_overdraft_is_a_limit_too(url: str) -> None:
    async with credit_api(url, overdraft="2.5") as api:
        await give(url, "user:ada", "1")
        assert (await api.ask("POST", "authorize", **estimate("3")))["available"] == "0.5"
        assert (await api.ask("POST", "authorize", status=402, **estimate("0.51")))["available"] == "0.5"


@pytest.mark.parametrize(("overdraft", "calls"), [("0", 10), ("3", 13)])
async def test_a_thousand_concurrent_authorisations_never_exceed_balance_and_allowed_overdraft(
    url: str, overdraft: str, calls: int
) -> None:
    """1000 concurrent requests on a balance for 10: exactly these are authorised, and the others get 402."""
    await give(url, "user:ada", "10")
    # httpx' pool is quadratic in the waiting requests. Each connection needs two descriptors of this process.
    wire = aiohttp.TCPConnector(limit=0 if resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 3000 else 400)
    async with (
        credit_api(url, overdraft=overdraft, connections=8) as api,
        aiohttp.ClientSession(connector=wire, headers={"Authorization": "Bearer plugin"}) as http,
    ):

        async def ask(number: int) -> int:
            body = {"estimate": "1", "call_id": f"call-{number}", "user": "ada"}
            async with http.post(f"http://127.0.0.1:{api.house.port}{CREDITS}/authorize", json=body) as answer:
                return answer.status

        result = await asyncio.gather(*map(ask, range(1000)))
    assert {status: result.count(status) for status in set(result)} == {200: calls, 402: 1000 - calls}
    [(reserved,)] = await rows(url, "SELECT sum(amount) FROM credit_reservations WHERE released_at IS NULL")
    assert reserved == calls
    await balanced(url)


async def test_a_purchase_is_started_once_for_each_key(api: CreditApi, url: str) -> None:
    created = await asyncio.gather(*(api.buy(key="k1") for _ in range(8)))
    assert len({json.dumps(one, sort_keys=True) for one in created}) == 1
    assert len(api.stripe.orders) == 1
    [order] = api.stripe.orders
    assert (order.name, order.price, order.currency) == ("Starter", 1000, "usd")
    assert created[0]["checkout_url"].startswith("https://checkout.stripe.com/")
    assert (await api.buy("bob", key="k1"))["purchase_id"] != created[0]["purchase_id"]
    for other in ({"package_id": 2}, {"success_url": "https://evil.example"}):
        result = await api.ask("POST", "purchase", "ada", 409, "k1", json={"package_id": 1, **URLS, **other})
        assert result["reason"] == "idempotency_conflict"
    assert (await api.buy())["purchase_id"] != (await api.buy())["purchase_id"], "without a key each is a purchase"


async def test_a_customer_is_created_once_and_linked_with_the_first_payment(api: CreditApi, url: str) -> None:
    """A purchase that was only started makes no account prepaid: usage of an account in `user_credits` would be
    debited.
    """
    first, *_ = await asyncio.gather(*(api.buy() for _ in range(5)))
    await api.buy("of_org_a", body={"account": "org:org_a"})
    created = await rows(url, "SELECT account, customer_id FROM stripe_customers ORDER BY account DESC")
    assert created == [("user:ada", "cus_1"), ("org:org_a", "cus_2")]
    assert await rows(url, "SELECT account FROM user_credits") == []
    await api.pay(first)
    assert await rows(url, "SELECT account, stripe_customer_id FROM user_credits") == [("user:ada", "cus_1")]
    api.stripe.customers.clear()  # Stripe forgets keys after a day
    await api.buy()
    assert api.stripe.customers == {}


async def test_a_customer_that_was_linked_by_hand_is_used(api: CreditApi, url: str) -> None:
    await rows(url, "INSERT INTO user_credits (user_id, stripe_customer_id) VALUES ('ada', 'cus_of_before')")
    await api.buy()
    assert api.stripe.customers == {}
    assert api.stripe.paying == ["cus_of_before"]


async def test_while_stripe_is_unavailable_nothing_is_offered_and_a_repeat_continues(api: CreditApi, url: str) -> None:
    api.stripe.away = True
    result = await api.ask("POST", "purchase", "ada", 503, "k1", json={"package_id": 1, **URLS})
    assert result["reason"] == "stripe_away"
    api.stripe.away = False
    created = await api.buy(key="k1")
    assert await rows(url, "SELECT session_id FROM credit_purchases") == [(created["session_id"],)]


async def test_a_paid_or_expired_purchase_is_not_started_again_under_its_key(api: CreditApi) -> None:
    created = await api.buy(key="k1")
    api.stripe.sessions = {name: one._replace(url="") for name, one in api.stripe.sessions.items()}
    result = await api.ask("POST", "purchase", "ada", 409, "k1", json={"package_id": 1, **URLS})
    assert result["reason"] == "purchase_ended" and created["session_id"]


SENSELESS: list[tuple[dict[str, Any], int, str]] = [
    ({"package_id": 999}, 404, "unknown_package"),
    ({"package_id": 0}, 422, "invalid_fields"),
    ({"package_id": "1"}, 422, "invalid_fields"),
    ({"payment_method": "cash"}, 422, "invalid_fields"),
    ({"success_url": "http://shop.example"}, 422, "invalid_fields"),
    ({"success_url": "javascript:alert(1)"}, 422, "invalid_fields"),
    ({"cancel_url": "https://shop.example@evil.example"}, 422, "invalid_fields"),
    ({"cancel_url": "https://shop.example/\n"}, 422, "invalid_fields"),
    ({"account": "user:ada", "user": "ada"}, 422, "invalid_fields"),
    ({"account": "ada"}, 422, "invalid_fields"),
    ({"credits": 1000}, 422, "invalid_fields"),
]


async def test_an_invalid_purchase_is_refused(api: CreditApi) -> None:
    for change, status, reason in SENSELESS:
        result = await api.ask("POST", "purchase", "ada", status, json={"package_id": 1, **URLS, **change})
        assert result["reason"] == reason, change
        assert api.stripe.orders == [], change


async def test_a_package_with_an_impossible_price_is_refused(api: CreditApi, url: str) -> None:
    await rows(url, "UPDATE credit_packages SET price_usd = 9.999 WHERE package_id = 1")
    result = await api.ask("POST", "purchase", "ada", 422, json={"package_id": 1, **URLS})
    assert result["reason"] == "price_not_payable"
    await rows(url, "UPDATE credit_packages SET price_usd = 0 WHERE package_id = 1")
    await api.ask("POST", "purchase", "ada", 422, json={"package_id": 1, **URLS})


async def test_the_receiver_of_a_payment_page_is_in_the_audit_log_without_the_page(api: CreditApi) -> None:
    await api.buy()
    [line] = api.house.topic.lines
    assert (line.actor, line.action) == ("user ada", f"POST {CREDITS}/purchase")
    assert "checkout.stripe.com" not in api.house.topic.text
    assert json.loads(line.after)["account"] == "user:ada"


async def test_answers_about_money_are_not_cached(api: CreditApi) -> None:
    for path in ("balance", "transactions"):
        answer = await api.house.http.get(f"{CREDITS}/{path}", headers={"Authorization": "Bearer ada"})
        assert answer.headers["cache-control"] == "no-store"


async def test_usage_debited_by_another_program_is_visible_at_once(api: CreditApi, url: str) -> None:
    await give(url, "user:ada", "3")
    await take(url, "ada", "1.5")
    assert await api.balance("user:ada") == Decimal("1.5")


async def test_an_answered_movement_is_on_disk(api: CreditApi, url: str) -> None:
    """By default the pool does not wait for the disk; a reservation and a debit do."""
    await give(url, "user:ada", "10")
    await rows(
        url,
        """CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO waits VALUES (TG_TABLE_NAME, current_setting('synchronous_commit')); RETURN NEW; END $$""",
    )
    await rows(url, "CREATE TABLE waits (what text, setting text)")
    tables = "credit_purchases", "credit_reservations", "credit_transactions", "stripe_customers", "stripe_events"
    for table in tables:
        await rows(url, f"CREATE TRIGGER noted AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION noted()")
    created = await api.ask("POST", "authorize", "plugin", **estimate("1"))
    await api.ask("DELETE", f"authorize/{created['reservation_id']}", "plugin")
    await api.ask("POST", "debit", "plugin", key="k", json={"user": "ada", "cost": "1"})
    await api.pay(await api.buy())
    found = await rows(url, "SELECT what, setting, count(*) > 0 FROM waits GROUP BY 1, 2 ORDER BY 1")
    assert found == [(table, "on", True) for table in tables]
