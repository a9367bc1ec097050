"""The load generator and its calculation of the owed amounts."""

import json
from collections import Counter
from decimal import Decimal

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.faults.calls import CUSTOMERS, Calls, owed_for
from tests.faults.load import Sender


def test_the_owed_amount_is_the_text_of_the_cost_rounded_once_half_to_even() -> None:
    assert owed_for("9.149999999999999e-06") == Decimal("0.00000915")
    assert owed_for("0.0000000000125") == Decimal("0.000000000012")
    assert owed_for("0.0000000000135") == Decimal("0.000000000014")


def test_the_seed_repeats_the_calls_and_no_two_are_the_same() -> None:
    one, two = Calls(5), Calls(5)
    calls = [one.make(1e9) for _ in range(2000)]
    assert calls == [two.make(1e9) for _ in range(2000)]
    assert len({call.key for call in calls}) == 2000
    assert {call.customer for call in calls} == set(CUSTOMERS)


def test_the_calls_contain_binary_noise_failures_with_a_cost_and_unbilled_calls() -> None:
    maker = Calls(5)
    calls = [maker.make(1e9) for _ in range(2000)]
    parsed = [(call, json.loads(call.text, parse_float=Decimal)) for call in calls]
    costs = [Decimal(fields.get("spend", fields.get("response_cost"))) for _, fields in parsed]
    assert sum(cost != call.cost for cost, call in zip(costs, calls, strict=True)) > 100, "noise below 1e-12 dollars"
    kinds = Counter((c.billed, f["status"], f["cache_hit"], bool(c.cost)) for c, f in parsed)
    assert set(kinds) == {
        (True, "success", False, True),
        (True, "failure", False, True),
        (False, "failure", False, False),
        (False, "success", True, True),
        (False, "success", False, False),
    }
    assert sum(c.billed for c in calls) > 1800


async def test_a_post_is_repeated_unchanged_until_it_is_accepted_and_duplicates_are_sent() -> None:
    bodies: Counter[bytes] = Counter()
    accepted: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        bodies[body] += 1
        match bodies[body]:
            case 1:
                return web.Response(status=503)
            case 2 if request.transport is not None:
                request.transport.abort()
        if bodies[body] < 3:
            return web.Response()
        accepted.append(body)
        return web.json_response({"status": "accepted"}, status=202)

    app = web.Application()
    app.router.add_post("/usage", take)
    async with TestServer(app) as server:
        sender = Sender(str(server.make_url("/usage")), token="t", secret="s", seed=5, rate=300, duplicates=0.2)
        await sender.run(1.0)
    load = sender.load
    assert load.waiting == 0 and load.refused == []
    assert set(bodies.values()) == {3}
    posted = Counter(key for body in accepted for key in _keys(body))
    assert set(posted) == set(load.owed.calls) and len(posted) == 300
    assert posted.total() == 300 + load.repeated > 320


async def test_an_unexpected_answer_is_reported() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=400, text="no")

    app = web.Application()
    app.router.add_post("/usage", refuse)
    async with TestServer(app) as server:
        sender = Sender(str(server.make_url("/usage")), token="t", secret="s", seed=5, rate=30)
        await sender.run(0.3)
    assert sender.load.refused and set(sender.load.refused) == {"400: no"}


def _keys(body: bytes) -> list[tuple[str, str, str]]:
    text = body.decode()
    calls = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    return [(call["litellm_call_id"], call["id"], call["status"]) for call in calls]
