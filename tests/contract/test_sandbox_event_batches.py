"""The order of checks, the form of a refusal, and that a batch is stored completely or not at all."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.sandbox import KEY, Clock, Lago, codes, event, lago_sandbox

BATCH = "/api/v1/events/batch"
EXISTS = {"transaction_id": ["value_already_exist"]}


@pytest.fixture(params=["postgres", "clickhouse"])
async def lago(request: pytest.FixtureRequest) -> AsyncIterator[Lago]:
    """Both stores: every test here holds for both, unless it asks for one."""
    async with lago_sandbox(clock=Clock(), store=request.param) as running:
        yield running


@pytest.fixture
async def on_postgres() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=Clock()) as running:
        yield running


async def accepted(lago: Lago) -> int:
    return int((await lago.stats())["totals"]["events"])


async def test_a_batch_answers_200_with_the_events_in_the_order_they_were_sent(lago: Lago) -> None:
    ids = ["c", "a", "b"]
    answer = await lago.post(*map(event, ids))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert [e["transaction_id"] for e in answer.json()["events"]] == ids


async def test_a_posted_event_has_an_id_on_postgres_and_none_yet_on_clickhouse(lago: Lago) -> None:
    [posted] = (await lago.post(event())).json()["events"]
    store = (await lago.stats())["store"]
    assert (posted["lago_id"] is None, posted["created_at"] is None) == ((store == "clickhouse"),) * 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"events":[]}',
        b"{}",
        b'{"events":null}',
        b'{"events":"x"}',
        b'{"events":{}}',
        b'{"events":[1,"x",null]}',
        b'{"event":{"code":"c"}}',
        b"[1]",
        b"",
    ],
)
async def test_an_empty_list_is_refused_before_any_other_check(lago: Lago, body: bytes) -> None:
    answer = await lago.http.post(BATCH, content=body, headers={"Content-Type": "application/json"})
    assert codes(answer) == {"events": ["no_events"]}


async def test_elements_that_are_no_objects_are_dropped(lago: Lago) -> None:
    answer = await lago.http.post(BATCH, json={"events": [1, event("only"), None]})
    assert [e["transaction_id"] for e in answer.json()["events"]] == ["only"]


async def test_an_object_in_place_of_the_list_crashes_lago(lago: Lago) -> None:
    answer = await lago.http.post(BATCH, json={"events": {"0": event()}})
    assert answer.status_code == 500


async def test_100_events_are_accepted_and_101_refused_before_any_is_checked(lago: Lago) -> None:
    many = [event(f"t{n}") for n in range(100)]
    assert codes(await lago.post(*many, event("", code="", timestamp="bad"))) == {"events": ["too_many_events"]}
    assert await accepted(lago) == 0
    assert (await lago.post(*many)).status_code == 200
    assert await accepted(lago) == 100


async def test_a_batch_with_one_bad_event_stores_nothing_and_names_the_index(lago: Lago) -> None:
    answer = await lago.post(event("t0"), event("t1", timestamp="bad"), event("t2"), event("", code="  "))
    mandatory = ["value_is_mandatory"]
    assert codes(answer) == {
        "1": {"timestamp": ["invalid_format"]},
        "3": {"transaction_id": mandatory, "code": mandatory},
    }
    assert await accepted(lago) == 0


async def test_a_bad_timestamp_hides_other_missing_fields(lago: Lago) -> None:
    assert codes(await lago.post({"timestamp": "bad"})) == {"0": {"timestamp": ["invalid_format"]}}


@pytest.mark.parametrize("field", ["transaction_id", "code"])
@pytest.mark.parametrize("value", [None, "", " \t", []], ids=["null", "empty", "blank", "array"])
async def test_an_id_and_a_code_are_mandatory(lago: Lago, field: str, value: Any) -> None:
    assert codes(await lago.post(event() | {field: value})) == {"0": {field: ["value_is_mandatory"]}}


async def test_a_single_event_without_a_code_is_refused_only_if_a_row_is_saved(lago: Lago) -> None:
    answer = await lago.post_one(event(code=None))
    if (await lago.stats())["store"] == "postgres":
        assert codes(answer) == {"code": ["value_is_mandatory"]}
    else:
        assert answer.status_code == 200


async def test_duplicates_are_reported_only_if_every_event_is_valid(on_postgres: Lago) -> None:
    """A mixed batch needs three round trips: bad events, then duplicates, then success."""
    lago = on_postgres
    await lago.post(event("old"))
    bad, old, new = event("bad", timestamp="bad"), event("old"), event("new")
    assert codes(await lago.post(bad, old, new)) == {"0": {"timestamp": ["invalid_format"]}}
    assert codes(await lago.post(old, new)) == {"0": EXISTS}
    assert (await lago.post(new)).status_code == 200
    assert await accepted(lago) == 2


async def test_any_duplicate_rolls_the_whole_batch_back(on_postgres: Lago) -> None:
    lago = on_postgres
    await lago.post(event("old"))
    assert codes(await lago.post(event("new"), event("old"), event("newer"))) == {"1": EXISTS}
    assert await accepted(lago) == 1
    assert (await lago.get("/events/new")).status_code == 404


async def test_of_two_copies_in_one_batch_the_second_is_refused(on_postgres: Lago) -> None:
    assert codes(await on_postgres.post(event("a"), event("b"), event("a"))) == {"2": EXISTS}
    assert await accepted(on_postgres) == 0


async def test_one_id_on_two_subscriptions_in_one_batch_is_wrongly_refused(on_postgres: Lago) -> None:
    """The unique index would allow it; counting the refused index as delivered would lose the event."""
    lago, other = on_postgres, event(external_subscription_id="sub_2")
    assert codes(await lago.post(event(), other)) == {"1": EXISTS}
    assert await accepted(lago) == 0
    assert (await lago.post(event())).status_code == 200
    assert (await lago.post(other)).status_code == 200
    assert await accepted(lago) == 2


async def test_the_index_reported_for_an_id_is_the_last_one_even_if_the_first_is_the_duplicate(
    on_postgres: Lago,
) -> None:
    lago = on_postgres
    await lago.post(event())
    assert codes(await lago.post(event(), event(external_subscription_id="sub_2"))) == {"1": EXISTS}


async def test_a_single_duplicate_has_no_index(on_postgres: Lago) -> None:
    assert (await on_postgres.post_one(event())).status_code == 200
    assert codes(await on_postgres.post_one(event())) == EXISTS


@pytest.mark.parametrize("body", [b"{}", b'{"events":[]}', b'{"event":{}}', b'{"event":null}', b"[]", b""])
async def test_a_single_event_without_its_root_key_is_a_bad_request(lago: Lago, body: bytes) -> None:
    answer = await lago.http.post("/api/v1/events", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json() == {
        "status": 400,
        "error": "BadRequest: param is missing or the value is empty or invalid: event",
    }


@pytest.mark.parametrize("body", [b"{", b'{"events":[{"timestamp":NaN}]}', b"\xff"])
async def test_a_body_that_is_not_json_is_a_bad_request(lago: Lago, body: bytes) -> None:
    answer = await lago.http.post(BATCH, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


async def test_a_body_of_another_content_type_is_not_read(lago: Lago) -> None:
    answer = await lago.http.post(BATCH, content=b'{"events":[{}]}', headers={"Content-Type": "text/plain"})
    assert codes(answer) == {"events": ["no_events"]}


@pytest.mark.parametrize("header", [None, "", "Bearer"])
async def test_without_a_key_every_answer_is_401(lago: Lago, header: str | None) -> None:
    lago.http.headers = {} if header is None else {"Authorization": header}
    for method, path in (("POST", BATCH), ("GET", "/api/v1/events"), ("GET", "/api/v1/organizations")):
        answer = await lago.http.request(method, path)
        assert (answer.status_code, answer.json()) == (401, {"status": 401, "error": "Unauthorized"})


async def test_only_the_configured_key_is_accepted_with_any_scheme() -> None:
    async with lago_sandbox(api_key=KEY) as lago:
        for header, status in ((f"Bearer {KEY}", 200), (f"Token {KEY}", 200), ("Bearer other", 401), (KEY, 401)):
            answer = await lago.http.get("/api/v1/organizations", headers={"Authorization": header})
            assert answer.status_code == status, header


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/v1/nothing"), ("PATCH", "/api/v1/events"), ("GET", "/x")])
async def test_an_unknown_path_or_verb_is_404_resource_not_found_with_and_without_a_key(
    lago: Lago, method: str, path: str
) -> None:
    for headers in (dict(lago.http.headers), {}):
        lago.http.headers = headers
        answer = await lago.http.request(method, path)
        assert answer.status_code == 404
        assert answer.json() == {"status": 404, "error": "Not Found", "code": "resource_not_found"}


async def test_health_is_at_the_root_and_needs_no_key(lago: Lago) -> None:
    lago.http.headers = {}
    health = await lago.http.get("/health")
    assert (health.status_code, health.json()["message"]) == (200, "Success")
    assert health.json()["version"] >= "v1.39.0"
    assert (await lago.http.get("/ready")).json() == {"status": "ok"}


async def test_the_organization_shows_its_event_store(lago: Lago) -> None:
    organization = (await lago.get("/organizations")).json()["organization"]
    assert organization["events_store"] == (await lago.stats())["store"]
