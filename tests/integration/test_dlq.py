"""Dead letters are listed with their amounts, requeued once, and billed once; the audit log says by whom."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from connectors.ingest.raw_record import strip
from connectors.ingest.rejection_record import InvalidElement, rejection
from connectors.operations.dead_letters import CALLS, EVENTS, Filters, unresolved
from connectors.operations.requeue import requeuer
from connectors.operations.sender import CommandProducer
from schemas.errors import Unavailable
from schemas.moments import HOUR_US, MOMENT_FORM
from schemas.money import AMOUNT_FORM
from schemas.wire import FLAT
from streams.components import Components
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.database import projector_parts, rows
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.posting import event, put, quick_delivery, statuses
from tests.support.sandbox import Lago
from tests.support.stage import Stage


@pytest.fixture
async def posting(stage: Stage, lago: Lago) -> AsyncIterator[Components]:
    async with http_client(trust_env=False) as http:
        yield stage.parts(delivery=quick_delivery(lago, http), retry_delay_s=0.05)


async def dead_events(stage: Stage, lago: Lago, posting: Components, *dead: str) -> None:
    """Events e-0..e-4 were posted to Lago, which refused those in `dead`; the cause is repaired by now."""
    for name in dead:
        await lago.fault(kind="poison", transaction_id=name)
    put(stage, [event(n) for n in range(5)])
    async with stage.running("sink", posting), stage.running("retry", posting):
        await soon(lambda: all(statuses(stage).get(name) == "failed" for name in dead), limit_s=30)
        await soon(lambda: list(statuses(stage).values()).count("completed") == 5 - len(dead))
    await lago.http.delete("/__faults")


async def test_dead_letters_are_listed_with_reason_amount_and_sum(
    stage: Stage, lago: Lago, posting: Components
) -> None:
    await dead_events(stage, lago, posting, "e-1", "e-3")
    result = (await meterbridge(stage, "dlq", "list", "--json")).json
    assert sorted(one["transaction_id"] for one in result["dead_letters"]) == ["e-1", "e-3"]
    (reason,) = result["by_reason"]
    assert result["by_reason"][reason] == {"count": 2, "usd": "0.03"}
    shown = (await meterbridge(stage, "dlq", "show", result["dead_letters"][0]["dead_letter"], "--json")).json
    assert shown["last_error"].startswith(reason)
    assert '"external_subscription_id":"sub"' in shown["value"]


async def test_requeued_events_arrive_once_however_often_the_command_is_repeated(
    stage: Stage, lago: Lago, posting: Components
) -> None:
    await dead_events(stage, lago, posting, "e-1", "e-3")
    first = await meterbridge(stage, "dlq", "requeue", "--comment", "Lago is well", "--json")
    second = await meterbridge(stage, "dlq", "requeue", "--json")
    assert (first.json["requeued"], second.json["requeued"]) == (2, 0)
    assert statuses(stage)["e-1"] == "processing"
    async with stage.running("retry", posting):
        await soon(lambda: set(statuses(stage).values()) == {"completed"}, limit_s=30)
    assert (await lago.stats())["totals"]["events"] == 5
    assert (await meterbridge(stage, "dlq", "list", "--json")).json["count"] == 0
    assert [line.get("reason", "") for line in stage.values(stage.topics.audit)] == ["Lago is well", ""]


async def test_an_event_that_fails_again_is_a_dead_letter_again(stage: Stage, lago: Lago, posting: Components) -> None:
    await dead_events(stage, lago, posting, "e-1")
    await meterbridge(stage, "dlq", "requeue")
    await lago.fault(kind="poison", transaction_id="e-1")
    async with stage.running("retry", posting):
        await soon(lambda: len(list(unresolved(stage.deployment, EVENTS, Filters()))) == 1, limit_s=30)
    (dead_letter,) = unresolved(stage.deployment, EVENTS, Filters())
    assert dead_letter.requeued == 1


async def test_filters_and_a_dry_run_touch_only_the_selected_dead_letters(
    stage: Stage, lago: Lago, posting: Components
) -> None:
    await dead_events(stage, lago, posting, "e-1", "e-3")
    for words in (("--reason", "timeout"), ("--customer", "other"), ("--since", "2100-01-01"), ("--until", "1h")):
        assert (await meterbridge(stage, "dlq", "requeue", *words, "--dry-run", "--json")).json["count"] == 0
    assert (await meterbridge(stage, "dlq", "requeue", "--dry-run", "--json")).json["count"] == 2
    limited = (await meterbridge(stage, "dlq", "list", "--limit", "1", "--json")).json
    assert (len(limited["dead_letters"]), limited["count"]) == (1, 2)
    (one, _) = unresolved(stage.deployment, EVENTS, Filters())
    assert (await meterbridge(stage, "dlq", "requeue", "--id", one.id, "--json")).json["requeued"] == 1
    assert (await meterbridge(stage, "dlq", "list", "--json")).json["count"] == 1


async def test_a_dismissal_needs_a_comment_and_keeps_the_record(stage: Stage, lago: Lago, posting: Components) -> None:
    await dead_events(stage, lago, posting, "e-1", "e-3")
    assert (await meterbridge(stage, "dlq", "requeue", "--limit", "1", "--json")).json["requeued"] == 1
    assert (await meterbridge(stage, "dlq", "dismiss")).code == 2
    assert (await meterbridge(stage, "dlq", "dismiss", "--until", "0s", "--comment", "a test", "--json")).json[
        "dismissed"
    ] == 1
    assert (await meterbridge(stage, "dlq", "list", "--json")).json["count"] == 0
    assert len([one for one in stage.read(stage.topics.dlq) if one.value()]) == 2
    (_, line) = stage.values(stage.topics.audit)
    assert (line["action"], line["count"], line["cost_usd"]) == ("dlq.purge", 1, "0.015")


async def test_of_two_requeuers_the_first_is_fenced(stage: Stage, lago: Lago, posting: Components) -> None:
    """Both would requeue the same dead letters."""
    await dead_events(stage, lago, posting, "e-1")
    sender = CommandProducer(stage.connection)
    async with requeuer(stage.deployment, sender, None) as first:
        dead_letters = await asyncio.to_thread(lambda: list(unresolved(stage.deployment, EVENTS, Filters())))
        async with requeuer(stage.deployment, sender, None) as second:
            with pytest.raises(Unavailable, match="requeue_in_progress"):
                await first.requeue(dead_letters, "a", lambda _count: None)
            done = await second.requeue(dead_letters, "b", lambda _count: None)
    assert done.requeued == 1
    assert len(stage.read(stage.topics.retry)) == 3 + 1


def old_call(number: int, days: int) -> Raw:
    """A call that ended days ago and arrives now."""
    now = time.time_ns() // 1000
    return raw(0, slp(number, at_us=now - days * 24 * HOUR_US, cost="2"), received_us=now)


async def test_a_call_repeated_after_three_days_is_not_billed_again_and_a_new_one_is(
    stage: Stage, database: str
) -> None:
    """Both wait as beyond_horizon; the usage log distinguishes the repeat from the late call."""
    stage.map("acme", "org", "sub")
    billed_then, late = old_call(1, 3), old_call(2, 3)
    three_days_ago = time.time_ns() // 1000 - 72 * HOUR_US
    async with projector_parts(stage, database) as project:
        first = replace(billed_then, timestamp=three_days_ago // 1000)
        stage.put([first])
        async with stage.running("meter", stage.parts()), stage.running("project", project):
            await soon(lambda: stage.sensors.calls.get("billable") == 1, limit_s=20)
            stage.put([old_call(3, 0)])  # three days pass on the partition's clock
            await soon(lambda: stage.sensors.calls.get("billable") == 2, limit_s=20)
            stage.put([billed_then, late])
            await soon(lambda: len(list(unresolved(stage.deployment, CALLS, Filters()))) == 2, limit_s=20)
            listed = (await meterbridge(stage, "dlq", "list", "--json")).json
            assert listed["by_reason"] == {"beyond_horizon": {"count": 2, "usd": "4"}}
            refused = await meterbridge(stage, "dlq", "requeue", "--json")
            assert (refused.code, "needs Postgres" in refused.err) == (2, True)
            dry = await meterbridge(stage, "dlq", "requeue", "--dry-run", "--json", DATABASE_URL=database)
            assert (dry.json["requeued"], dry.json["known"], dry.json["count"]) == (1, 1, 2), dry.err
            done = await meterbridge(stage, "dlq", "requeue", "--json", DATABASE_URL=database)
            assert (done.json["requeued"], done.json["known"]) == (1, 1), done.err
            again = await meterbridge(stage, "dlq", "requeue", "--json", DATABASE_URL=database)
            assert (again.json["requeued"], again.json["known"]) == (0, 0)
            await soon(lambda: len(stage.values(stage.topics.events)) == 3, limit_s=20)
    cents = [Decimal(one["precise_total_amount_cents"]) for one in stage.values(stage.topics.events)]
    assert cents == [200, 200, 200]
    assert (await rows(database, "SELECT count(*) FROM llm_usage_log"))[0][0] == 3


async def test_a_call_that_can_never_be_read_stays_a_dead_letter(stage: Stage, database: str) -> None:
    stage.producer.produce(stage.topics.raw, b"{", b"acme")
    stage.producer.flush(10 * PATIENCE)
    async with stage.running("meter", stage.parts()):
        await soon(lambda: len(stage.read(stage.topics.rejected)) == 1, limit_s=20)
    dry = await meterbridge(stage, "dlq", "requeue", "--dry-run", DATABASE_URL=database)
    assert "Dry run, nothing was written: 0 requeued, 0 dismissed, 0 known, 1 impossible, 0 unaccepted" in dry.out
    assert "`meterbridge dlq dismiss --reason malformed --comment WHY`" in " ".join(dry.out.split())
    done = await meterbridge(stage, "dlq", "requeue", "--json", DATABASE_URL=database)
    assert done.json["impossible"] == 1
    assert (await meterbridge(stage, "dlq", "list", "--json")).json["count"] == 1


@pytest.mark.parametrize(
    ("wrong", "reason", "expected"),
    [
        ({"spend": [1]}, "wrong_type", {"spend": AMOUNT_FORM}),
        ({"endTime": {}, "metadata": {"user_api_key_hash": []}}, "wrong_type", {"endTime": MOMENT_FORM}),
        ({"endTime": "yesterday"}, "bad_time", {}),
    ],
)
async def test_the_expected_form_of_a_rejected_field_is_shown(
    stage: Stage, wrong: dict[str, Any], reason: str, expected: dict[str, str]
) -> None:
    element = json.dumps({"id": "r", "model": "m", "spend": 0.5, "startTime": time.time(), **wrong}).encode()
    with pytest.raises(InvalidElement) as refused:
        strip(element, FLAT, time.time_ns() // 1000, CUSTOMER_ID_FIELDS)
    stage.producer.produce(stage.topics.rejected, rejection(refused.value, element, time.time_ns() // 1000), b"acme")
    stage.producer.flush(10 * PATIENCE)
    (listed,) = (await meterbridge(stage, "dlq", "list", "--json")).json["dead_letters"]
    shown = (await meterbridge(stage, "dlq", "show", listed["dead_letter"], "--json")).json
    assert (shown["reason"], shown["expected"].items() >= expected.items()) == (reason, True), shown
    assert (listed["call"], list(listed)[-1]) == ("r", "call")
    text = (await meterbridge(stage, "dlq", "show", listed["dead_letter"])).out
    for form in (f"{name}: {form}" for name, form in expected.items()):
        assert form in text
    if reason == "bad_time":
        assert shown["last_error"] == f"endTime: expected {MOMENT_FORM}"


async def test_a_dismissed_call_stays_dismissed_when_a_replay_sends_it_again(stage: Stage, database: str) -> None:
    """The copy is the same call, although its dead letter has another number; another call is a dead letter of its own."""
    stage.put([raw(0, slp(1, cost="-1"))])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: len(stage.read(stage.topics.rejected)) == 1, limit_s=20)
        assert (await meterbridge(stage, "dlq", "list", "--json")).json["count"] == 1
        assert (await meterbridge(stage, "dlq", "dismiss", "--until", "0s", "--comment", "a test", "--json")).json[
            "dismissed"
        ] == 1
        since = str(time.time())
        replayed = await meterbridge(stage, "replay", "--from", "2020-01-01", "--to", "2100-01-01", "--json")
        assert replayed.json["records"] == 1
        await soon(lambda: len([one for one in stage.read(stage.topics.rejected) if one.value()]) == 2, limit_s=20)
        for words in ((), ("--since", since)):
            assert (await meterbridge(stage, "dlq", "list", *words, "--json")).json["count"] == 0
        stage.put([raw(1, slp(2, cost="-1"))])
        await soon(lambda: len([one for one in stage.read(stage.topics.rejected) if one.value()]) == 3, limit_s=20)
        (left,) = (await meterbridge(stage, "dlq", "list", "--json")).json["dead_letters"]
        assert left["reason"] == "negative_cost"


async def test_an_unknown_reason_is_an_error_that_lists_the_known_ones(stage: Stage) -> None:
    for words in (("list",), ("requeue",), ("requeue", "--dry-run"), ("dismiss", "--dry-run")):
        done = await meterbridge(stage, "dlq", *words, "--reason", "negativ_cost", "--json")
        assert (done.code, done.out) == (2, "")
        assert "did you mean negative_cost?" in done.err
        assert "beyond_horizon" in done.err
    assert (await meterbridge(stage, "dlq", "list", "--reason", "negative_cost", "--json")).code == 0
    assert (await meterbridge(stage, "dlq", "list", "--reason", "http_503", "--json")).code == 0


async def test_explain_finds_a_rejected_call_by_each_of_its_ids(stage: Stage, database: str) -> None:
    """Earlier it said: "it never arrived". A call whose dead letter is closed is in no list any more."""
    stage.put([raw(0, slp(7, cost="-1"), received_us=time.time_ns() // 1000)])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: len(stage.read(stage.topics.rejected)) == 1, limit_s=20)
    (listed,) = (await meterbridge(stage, "dlq", "list", "--json")).json["dead_letters"]
    place = listed["dead_letter"]
    for one in ("chatcmpl-7", "call-7"):
        found = await meterbridge(stage, "explain", "--request", one, DATABASE_URL=database)
        assert (
            found.code == 0
            and f"chatcmpl-7 -> rejected: negative_cost (the cost is below 0), dead letter {place}, see" in found.out
        )
    as_json = await meterbridge(stage, "explain", "--request", "call-7", "--json", DATABASE_URL=database)
    assert as_json.json == {"calls": [], "rejected": [listed]} and listed["call"] == "chatcmpl-7"
    away = {"DATABASE_URL": database, "TOPIC_PREFIX": "absent."}
    unread = await meterbridge(stage, "explain", "--request", "call-7", **away)
    assert unread.code == 1 and "no call call-7 is in the usage log, and the dead letters cannot be read" in unread.err
    await meterbridge(stage, "dlq", "dismiss", "--id", place, "--comment", "a test")
    gone = await meterbridge(stage, "explain", "--request", "call-7", DATABASE_URL=database)
    assert gone.code == 1 and "its dead letter was dismissed" in gone.err


async def test_a_selection_that_matches_nothing_says_so(stage: Stage) -> None:
    """Earlier a requeue of a dismissed dead letter printed five zeros, with exit code 0."""
    stage.put([raw(0, slp(number, cost="2000000"), customer=name) for number, name in enumerate(("acme", "beta"))])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: len(stage.read(stage.topics.rejected)) == 2, limit_s=20)

    async def said(*words: str) -> tuple[int, str]:
        done = await meterbridge(stage, "dlq", *words)
        return done.code, (done.out + done.err).strip()

    letters = (await meterbridge(stage, "dlq", "list", "--json")).json["dead_letters"]
    assert {one["usd"] for one in letters} == {"2000000"}
    place = next(one["dead_letter"] for one in letters if one["customer"] == "beta")
    for words in (("list",), ("requeue",), ("requeue", "--dry-run"), ("dismiss", "--dry-run")):
        matches = await said(*words, "--customer", "acmee")
        assert matches == (0, "No open dead letter matches; 2 others are open. Did you mean acme?"), words
    assert (await said("dismiss", "--id", place, "--comment", "a test"))[0] == 0
    for words in (("requeue",), ("requeue", "--dry-run"), ("dismiss", "--comment", "again")):
        code, sentence = await said(*words, "--id", place)
        assert code == 1 and f"no dead letter {place} is open: it was requeued or dismissed" in sentence, words
        assert (await said(*words, "--id", "17"))[0] == 2
    audited = [line["action"] for line in stage.values(stage.topics.audit)]
    assert len(audited) == 2, "a requeue of --customer acmee, and the dismissal"
    assert (await said("list", "--customer", "beta")) == (0, "No open dead letter matches; 1 other is open.")
    assert (await said("dismiss", "--customer", "acme", "--comment", "a test"))[0] == 0
    assert (await said("list", "--customer", "beta")) == (0, "There are no open dead letters.")
