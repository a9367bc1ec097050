"""Authorisation of the management API: unknown callers are refused, no caller sees another's org, and every attempt
leaves a line in the audit log.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest
from aiohttp import web

from connectors.access.audit_writer import MAX_VALUE, OF_ALL, OF_ONE, SOURCES, Attempt, Audit
from connectors.api.authorizer import WRONG_PER_S, FixedKeys
from connectors.api.credits import CreditHandlers
from connectors.api.power_levels import PowerLevelHandlers
from connectors.api.provider_keys import ProviderKeyHandlers
from connectors.http.endpoint import Endpoint, Principal
from connectors.http.problem import Problem
from connectors.http.request_limits import MAX_BODY
from tests.support.entrance import ENDPOINTS, Clock, GuardedApp, Known, Topic, running_house
from tests.support.eventually import within

ALL = {
    "reader": Principal("reader", frozenset({"things:read", "orgs:read"})),
    "acme": Principal("acme's", frozenset({"*"}), frozenset({"org_acme"})),
    "no one's": Principal("no one's", frozenset({"*"}), frozenset()),
}
WRONG = "mb_0123456789ab_wrong-secret-that-must-not-be-written"


@pytest.fixture
async def house() -> AsyncIterator[GuardedApp]:
    async with running_house([FixedKeys("sk-master", "lago-key"), Known(ALL)]) as running:
        yield running


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["reason"])


async def raw(house: GuardedApp, path: str, token: str = "reader") -> tuple[int, str]:
    """The path as raw bytes: an HTTP client would normalise it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), str(json.loads(body).get("reason")) if body.startswith(b"{") else ""


async def test_the_master_key_has_all_rights(house: GuardedApp) -> None:
    for path in ("/things", "/orgs/org_x", "/texts/a", "/api/customers", "/api/customers/x"):
        assert (await house.get(path, "sk-master")).json()["actor"] == "master key"
    assert (await house.post("/things", "sk-master")).status_code == 200


async def test_lagos_key_is_accepted_only_where_it_is_documented(house: GuardedApp) -> None:
    for path in ("/api/customers", "/api/customers/x"):
        assert (await house.get(path, "lago-key")).json()["actor"] == "lago key"
    assert (await house.post("/api/billing/plans", "lago-key")).status_code == 200
    for path in ("/things", "/orgs/org_x", "/api/customersX"):
        assert refused(await house.get(path, "lago-key"), 403) == "missing_scope"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer None", "Basic sk-master", "sk-master", "Bearer sk-masterx", "Bearer \xff"],
)
async def test_a_request_without_a_known_credential_is_refused(house: GuardedApp, header: str) -> None:
    headers = {"Authorization": header.encode("latin-1")} if header else {}
    answer = await house.http.get("/things", headers=headers)
    assert refused(answer, 401) == "unknown_token"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("keys", [FixedKeys(None, None), FixedKeys("", ""), FixedKeys("sk-master", None)])
async def test_a_credential_that_is_not_configured_matches_no_request(keys: FixedKeys) -> None:
    """An empty configured key must not match an empty key in a request."""
    for token in ("", "None", " ", "\0"):
        for endpoint in ENDPOINTS:
            assert await keys.principal(token, endpoint) is None


async def test_an_open_endpoint_needs_no_credential(house: GuardedApp) -> None:
    assert (await house.get("/open")).json()["actor"] == "anybody"


async def test_a_refusal_names_the_missing_scope(house: GuardedApp) -> None:
    answer = await house.post("/things", "reader")
    assert refused(answer, 403) == "missing_scope" and "things:write" in answer.json()["detail"]
    assert house.topic.lines == []
    assert [line.reason for line in await house.written()] == ["missing_scope"]


async def test_a_credential_bound_to_an_org_reaches_only_that_org(house: GuardedApp) -> None:
    """The refusal is the same for an org that exists and one that does not."""
    assert (await house.get("/orgs/org_acme", "acme")).status_code == 200
    assert (await house.get("/own?org=org_acme", "acme")).status_code == 200
    answers = [
        await house.get(path, principal)
        for path in ("/orgs/org_other", "/orgs/ORG_ACME", "/orgs/org_acme%20", "/own?org=org_other", "/api/customers/x")
        for principal in ("acme", "no one's")
    ]
    answers.append(await house.get("/orgs/org_acme", "no one's"))
    assert {refused(answer, 403) for answer in answers} == {"other_org"}
    assert {answer.text for answer in answers} == {answers[0].text}


async def test_an_endpoint_about_all_orgs_refuses_a_credential_bound_to_some(house: GuardedApp) -> None:
    """Refused by default: an endpoint has to declare that it filters by org."""
    assert refused(await house.get("/things", "acme"), 403) == "other_org"
    assert refused(await house.post("/things", "acme"), 403) == "other_org"


@pytest.mark.parametrize(
    "path",
    [
        "/orgs/..%2f..%2fthings",
        "/orgs/%2e%2e",
        "/orgs/.",
        "/orgs/..",
        "/orgs/a%2fb",
        "/orgs/a%5cb",
        "/orgs/a%00",
        "/orgs/a%0d%0aX",
        "/orgs/" + "a" * 256,
        "/orgs/../things",
        "/things/../orgs/x",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/orgs%2fx",
        "/things%00",
        "/nowhere/a%2fb",
    ],
)
async def test_a_malicious_path_is_answered_400_and_logged(house: GuardedApp, path: str) -> None:
    assert await raw(house, path) == (400, "bad_path")
    [line] = await house.written()
    assert (line.action, line.reason) == ("access.refused", "bad_path")


async def test_an_unknown_path_is_not_treated_as_malicious(house: GuardedApp) -> None:
    assert (await raw(house, "/nowhere"))[0] == 404
    assert (await raw(house, "/nowhere/v1.2/a..b?x=%2f"))[0] == 404
    assert await house.written() == []


async def test_a_customer_id_in_a_path_may_be_any_text(house: GuardedApp) -> None:
    for path, text in (("/texts/a%2f..%2fb", "a/../b"), ("/texts/" + "a" * 1000, "a" * 1000)):
        assert (await house.get(path, "reader")).json()["parts"] == {"text": text}


async def test_a_body_of_the_maximum_size_is_accepted_and_one_more_byte_is_413(house: GuardedApp) -> None:
    def body(size: int) -> bytes:
        return b'{"name": "' + b"a" * (size - 12) + b'"}'

    assert (await house.post("/things", "sk-master", json=None, content=body(MAX_BODY))).status_code == 200
    too_large = await house.post("/things", "sk-master", json=None, content=body(MAX_BODY + 1))
    assert refused(too_large, 413) == "body_too_large"
    assert [line.reason for line in await house.written()] == ["", "body_too_large"]


async def test_a_body_without_a_content_length_is_counted_and_a_compressed_one_is_decompressed(
    house: GuardedApp,
) -> None:
    import gzip

    async def fetch_batches() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * (MAX_BODY // 2)

    assert (
        refused(await house.post("/things", "sk-master", json=None, content=fetch_batches()), 413) == "body_too_large"
    )
    headers = {"Authorization": "Bearer sk-master", "Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * (MAX_BODY * 10))
    assert len(bomb) < MAX_BODY
    assert refused(await house.http.post("/things", content=bomb, headers=headers), 413) == "body_too_large"


async def test_a_body_with_a_too_large_content_length_is_refused_before_it_arrives(house: GuardedApp) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    head = (
        f"POST /things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-master\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
    )
    writer.write(head.encode())
    async with within(10):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_the_body_of_an_unknown_caller_is_not_read(house: GuardedApp) -> None:
    answer = await house.post("/things", "wrong", json=None, content=b"x" * (MAX_BODY + 1))
    assert refused(answer, 401) == "unknown_token"


async def test_a_change_is_logged_before_it_is_answered_and_the_line_has_no_secret(house: GuardedApp) -> None:
    assert (await house.post("/things", "sk-master", json={"name": "new"})).status_code == 200
    [line] = house.topic.lines
    assert (line.actor, line.action, line.address) == ("master key", "POST /things", "127.0.0.1")
    assert json.loads(line.before) == {"name": "before"}
    assert json.loads(line.after)["name"] == "new" and "ssss" not in line.after
    assert line.request_id


async def test_a_change_that_cannot_be_logged_is_not_made(house: GuardedApp) -> None:
    house.topic.away = True
    answer = await house.post("/things", "sk-master")
    assert refused(answer, 503) == "kafka_unavailable" and answer.headers["retry-after"]


async def test_a_value_too_large_for_a_log_line_is_replaced_by_its_length() -> None:
    topic = Topic()
    audit = Audit(topic, "audit", Clock(), lambda: 0, topic.chain_head)
    await audit.changing(Attempt("a", "b", {}, "", ""), None, {"text": "x" * MAX_VALUE})
    assert topic.lines[0].before == ""
    assert json.loads(topic.lines[0].after) == {"characters_left_out": MAX_VALUE + 11}


async def test_a_refused_attempt_is_logged_without_the_credential(house: GuardedApp) -> None:
    """Without the path of an unknown caller, too: it may contain a key by mistake."""
    await house.get(f"/orgs/{WRONG}", WRONG)
    await house.get(f"/{WRONG}/../x", WRONG)
    await house.get("/orgs/org_other", "acme")
    lines = await house.written()
    assert WRONG not in house.topic.text and "wrong-secret" not in house.topic.text
    assert [(line.actor, line.reason) for line in lines] == [("", "unknown_token"), ("acme's", "other_org")]
    assert lines[0].target == {"request": "GET /orgs/{org_id}"}
    assert lines[1].target == {"request": "GET /orgs/{org_id}", "org_id": "org_other"}


class Expired:
    """A credential that was valid before."""

    async def principal(self, token: str, endpoint: Endpoint) -> Principal | None:
        raise Problem(401, "token_expired")


async def test_expired_tokens_count_as_wrong_credentials() -> None:
    async with running_house([Expired()]) as house:
        answers = [(await house.get("/things", "old")).status_code for _ in range(int(WRONG_PER_S) + 5)]
    assert answers == [401] * int(WRONG_PER_S) + [429] * 5


async def test_a_flood_of_wrong_keys_makes_a_few_log_lines_and_one_with_their_count() -> None:
    topic, clock = Topic(), Clock()
    audit = Audit(topic, "audit", clock, lambda: 0, topic.chain_head)
    for _ in range(5000):
        audit.refused(Attempt("", "GET /x", {}, "192.0.2.1", ""), "unknown_token")
    audit.refused(Attempt("", "GET /x", {}, "192.0.2.2", ""), "unknown_token")
    await audit.write_waiting()
    assert [line.address for line in topic.lines] == ["192.0.2.1"] * OF_ONE + ["192.0.2.2"]
    clock.now += 60
    await audit.write_waiting()
    last = topic.lines[-1]
    assert (last.reason, last.count, last.target) == ("left_out", 5000 - OF_ONE, {"192.0.2.1": str(5000 - OF_ONE)})
    clock.now += 60
    await audit.write_waiting()
    assert topic.lines[-1] is last, "a quiet minute has no line"


async def test_a_flood_from_many_addresses_is_bounded_too() -> None:
    topic, clock = Topic(), Clock()
    audit = Audit(topic, "audit", clock, lambda: 0, topic.chain_head)
    for number in range(20_000):
        audit.refused(Attempt("", "GET /x", {}, f"2001:db8:{number:x}::/64", ""), "unknown_token")
    await audit.write_waiting()
    assert len(topic.lines) == OF_ALL
    assert len(audit._minute.came) <= SOURCES + 1
    clock.now += 60
    await audit.write_waiting()
    assert len(topic.lines) == OF_ALL + 1 and topic.lines[-1].count == 20_000 - OF_ALL


async def test_while_kafka_is_unavailable_a_bounded_number_of_refusals_waits_and_is_logged_later() -> None:
    topic, clock = Topic(away=True), Clock()
    audit = Audit(topic, "audit", clock, lambda: 0, topic.chain_head)
    for minute in range(30):
        for number in range(300):
            audit.refused(Attempt("", "GET /x", {}, f"{minute}.{number}", ""), "unknown_token")
        clock.now += 60
        await audit.write_waiting()
    assert len(audit._waiting) < 2100
    topic.away = False
    await audit.write_waiting()
    assert sum(line.count for line in topic.lines) == 9000


async def test_a_caller_over_its_rate_limit_gets_429_with_retry_after_and_others_are_not_limited() -> None:
    async with running_house([FixedKeys("sk-master", None), Known(ALL)], per_second=2) as house:
        assert [(await house.get("/things", "reader")).status_code for _ in range(3)] == [200, 200, 429]
        answer = await house.get("/things", "reader")
        assert refused(answer, 429) == "too_many_requests" and int(answer.headers["retry-after"]) >= 1
        assert (await house.get("/things", "sk-master")).status_code == 200
        house.clock.now += 0.5
        assert (await house.get("/things", "reader")).status_code == 200
        assert await house.written() == []


async def test_requests_that_the_plugin_makes_for_every_call_have_their_own_rate_limit() -> None:
    """All proxies share one key; a person who looks at the dashboard must not use up their limit."""
    kinds = [FixedKeys("sk-master", None), Known(ALL)]
    async with running_house(kinds, per_second=1, calls_per_second=4) as house:
        assert [(await house.get("/calls", "reader")).status_code for _ in range(6)] == [200] * 4 + [429] * 2
        assert [(await house.get("/things", "reader")).status_code for _ in range(2)] == [200, 429]
        answer = await house.get("/calls", "reader")
        assert refused(answer, 429) == "too_many_requests" and "AUTHORIZE_RATE_LIMIT" in answer.json()["detail"]


def test_the_endpoints_that_the_plugin_calls_for_every_call_are_marked() -> None:
    marked = {
        (created().method, created().path)
        for handlers in (CreditHandlers, ProviderKeyHandlers, PowerLevelHandlers)
        for member in vars(handlers).values()
        if (
            created := partial(member.__dict__["endpoint"], handler=answered)
            if "endpoint" in getattr(member, "__dict__", ())
            else None
        )
        and created().per_call
    }
    assert marked == {
        ("POST", "/api/v1/credits/authorize"),
        ("DELETE", "/api/v1/credits/authorize/{reservation_id}"),
        ("POST", "/api/v1/provider-keys/resolve"),
    }


async def answered(_: object) -> web.Response:
    return web.Response()


async def test_wrong_credentials_slow_down_an_address_but_not_known_callers_at_that_address(house: GuardedApp) -> None:
    async def tried(token: str, address: str = "192.0.2.1") -> int:
        return (await house.get("/things", token, **{"X-Forwarded-For": address})).status_code

    answers = [await tried(f"guess-{number}") for number in range(int(WRONG_PER_S) + 5)]
    assert answers == [401] * int(WRONG_PER_S) + [429] * 5
    assert await tried("reader") == 200
    assert await tried("guess", "192.0.2.2") == 401
    house.clock.now += 0.1
    assert await tried("guess") == 401


async def test_an_ipv6_network_counts_as_one_address(house: GuardedApp) -> None:
    """The owner of such a network has 2^64 addresses."""
    for number in range(int(WRONG_PER_S)):
        await house.get("/things", "guess", **{"X-Forwarded-For": f"2001:db8::{number}"})
    assert (await house.get("/things", "guess", **{"X-Forwarded-For": "2001:db8::ffff"})).status_code == 429
    assert (await house.get("/things", "guess", **{"X-Forwarded-For": "2001:db8:0:1::"})).status_code == 401


@pytest.mark.parametrize("header", [None, "reader", "Basic cmVhZGVyOng=", "Bearer"])
async def test_a_401_without_a_bearer_token_explains_how_to_send_one(house: GuardedApp, header: str | None) -> None:
    answer = await house.get("/things", **({"Authorization": header} if header is not None else {}))
    assert refused(answer, 401) == "unknown_token"
    assert answer.json()["detail"] == "no bearer token: send `Authorization: Bearer <key>`"


async def test_a_401_for_a_wrong_token_says_only_that_it_is_unknown(house: GuardedApp) -> None:
    assert (await house.get("/things", WRONG)).json()["detail"].startswith("the bearer token is unknown: send ")


async def test_a_401_does_not_reveal_that_no_master_key_is_set() -> None:
    """It sends the operator to the log instead."""
    async with running_house([FixedKeys("", ""), Known(ALL)]) as house:
        without = (await house.get("/things", WRONG)).json()["detail"]
    async with running_house([FixedKeys("sk-master", ""), Known(ALL)]) as house:
        assert (await house.get("/things", WRONG)).json()["detail"] == without
    assert without.startswith("the bearer token is unknown: send ") and "the server's log says so" in without
