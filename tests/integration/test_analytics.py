"""The sums of analytics equal the usage log's after any counting, later billing, release or repeated reading."""

import asyncio
import csv
import io
import itertools
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from connectors.operations.usage_report import usage_of_all, usage_of_user
from connectors.operations.usage_summary import SummaryRefresh
from connectors.postgres.pool import Database
from schemas.context import CallContext
from schemas.records import EnrichedUsage
from tests.support.accounts import PROJECTOR, READER, as_role, owned_database
from tests.support.database import rows
from tests.support.history import PREFIX, TOPICS
from tests.support.identity_provider import identity_provider, names
from tests.support.kafka import Kafka
from tests.support.projection import Writer, event, manifest, receipt, usage
from tests.support.server import BEARER, running_server, settings_for

PATH = "/api/v1/analytics/usage"
FIRST = date(2026, 11, 20)
LAST = date(2026, 11, 22)


def call(number: int, at: datetime, seconds: float = 1.5, context: CallContext | None = None, **fields: Any) -> Any:
    """A call that ended `at`."""
    moments = {"start": _iso(at - timedelta(seconds=seconds)), "end": _iso(at)}
    kept = {} if context is None else {"context": msgspec.Raw(msgspec.json.encode(context))}
    return usage(number, **{"status": "success", **moments, **kept, **fields})


def _iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def at(day: int, hour: float = 12.0) -> datetime:
    return datetime(2026, 11, day, tzinfo=UTC) + timedelta(hours=hour)


def some_calls(count: int, seed: int = 1) -> list[EnrichedUsage]:
    """Calls of every kind over three days."""
    some = random.Random(seed)
    created = []
    for number in range(1, count + 1):
        decision = some.choice(
            ["billable", "billable", "byok", "own_subscription", "unpriced", "failed_with_cost", "cache_hit", "carried"]
        )
        tags = some.sample(["prod", "team:a", "=evil"], some.randint(0, 2))
        created.append(
            call(
                number,
                at(20, some.uniform(0, 71.99)),
                some.choice([0, 0.02, 0.7, 3, 40]),
                CallContext(tags=tags) if tags else None,
                decision=decision,
                cost_usd=Decimal(some.randint(0, 10**9)).scaleb(-12),
                billed_usd=some.choice([None, Decimal(some.randint(0, 10**9)).scaleb(-12)])
                if decision != "carried"
                else None,
                status=some.choice(["success", "success", "failure", ""]),
                byok=decision == "byok" or some.random() < 0.1,
                tokens_input=some.randint(0, 9000),
                tokens_output=some.randint(0, 900),
                **{
                    name: some.choice(["", "a", "b"])
                    for name in ("user_id", "org_id", "provider", "model", "team_id", "key_hash")
                },
            )
        )
    return created


def expected(calls: list[EnrichedUsage], group_by: str) -> dict[str, tuple[int, int, Decimal, Decimal]]:
    """Calls, output tokens, provider cost and billed amount by group, computed in a simple, slow way."""
    sums: dict[str, tuple[int, int, Decimal, Decimal]] = {}
    fields = {"user": "user_id", "org": "org_id", "team": "team_id", "key": "key_hash"}
    for one in calls:
        context = msgspec.json.decode(one.context, type=CallContext) if one.context else CallContext()
        values = {"day": [one.end[:10]], "tag": context.tags}.get(group_by)
        is_carried = one.decision == "carried"  # the success after it has its cost and its tokens
        paid_by_caller = one.byok or one.decision in ("byok", "own_subscription")
        cost = Decimal(0) if paid_by_caller or is_carried else one.cost_usd
        by_cost = one.cost_usd if one.decision in ("billable", "failed_with_cost") else Decimal(0)
        billed = by_cost if one.billed_usd is None else one.billed_usd
        for value in values if values is not None else [getattr(one, fields.get(group_by, group_by))]:
            before = sums.get(value, (0, 0, Decimal(0), Decimal(0)))
            sums[value] = (
                before[0] + 1,
                before[1] + (0 if is_carried else one.tokens_output),
                before[2] + cost,
                before[3] + billed,
            )
    return sums


async def report_by(url: str, group_by: str, user: str | None = None) -> dict[str, tuple[int, int, Decimal, Decimal]]:
    with Database(url, size=1) as database:
        if user is None:
            report = await usage_of_all(database, FIRST, LAST, group_by, 1000)
        else:
            report = await usage_of_user(database, FIRST, LAST, group_by, 1000, user)
    return {
        row.value: (
            row.sums["calls"],
            int(row.sums["tokens_output"]),
            row.sums["provider_cost_usd"],
            row.sums["billed_usd"],
        )
        for row in report.rows
    }


async def refreshed(url: str) -> None:
    await rows(url, "SELECT refresh_usage_summary()")


async def test_every_grouping_has_the_logs_sums_to_the_last_digit(url: str) -> None:
    calls = some_calls(400)
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, *calls)
    await refreshed(url)
    for group_by in ("day", "user", "org", "provider", "model", "team", "key", "tag"):
        assert await report_by(url, group_by) == expected(calls, group_by), group_by
    for group_by in ("day", "provider", "model"):
        own = [one for one in calls if one.user_id == "a"]
        assert await report_by(url, group_by, "a") == expected(own, group_by), group_by
    summary = await rows(
        url,
        "SELECT sum(total_requests), sum(billed_usd), sum(total_cost), sum(completion_tokens) FROM llm_usage_summary",
    )
    billed = sum((one[3] for one in expected(calls, "day").values()), Decimal(0))
    counted = [one for one in calls if one.decision != "carried"]
    cost = sum((one.cost_usd for one in counted), Decimal(0))
    assert summary == [(400, billed, cost, sum(one.tokens_output for one in counted))]


async def test_only_changed_days_are_summed_again(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, call(1, at(20)), call(2, at(21)))
        await refreshed(url)
        assert await rows(url, "SELECT days FROM usage_summary_refreshed") == [(2,)]
        before = await rows(url, "SELECT xmin::text FROM usage_summary_days WHERE day = '2026-11-20'")
        await writer.put(TOPICS.enriched, call(3, at(21)), call(4, at(22)))
        await refreshed(url)
        assert await rows(url, "SELECT days FROM usage_summary_refreshed") == [(2,)]
        assert await rows(url, "SELECT xmin::text FROM usage_summary_days WHERE day = '2026-11-20'") == before
        await refreshed(url)
        assert await rows(url, "SELECT days FROM usage_summary_refreshed") == [(0,)]
    assert {day: one[0] for day, one in (await report_by(url, "day")).items()} == {
        "2026-11-20": 1,
        "2026-11-21": 2,
        "2026-11-22": 1,
    }


async def test_a_call_billed_later_and_a_call_read_again_count_once(url: str) -> None:
    unpriced = call(1, at(20), decision="unpriced", cost_usd=Decimal(0), part="")
    billed = call(1, at(21), decision="billable", cost_usd=Decimal("0.5"), offset=9)
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, unpriced)
        await refreshed(url)
        await writer.put(TOPICS.enriched, billed, billed)
        await refreshed(url)
    assert await report_by(url, "day") == {"2026-11-21": (1, 0, Decimal("0.5"), Decimal("0.5"))}, (
        "the old day has no row"
    )


async def test_held_usage_belongs_to_its_org_once_it_is_released(url: str) -> None:
    held = call(7, at(20), held="no_mapping", part=f"{PREFIX}7", org_id="")
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, held)
        await refreshed(url)
        assert (await report_by(url, "org")).keys() == {""}
        await writer.put(TOPICS.events, event(9, org_id="org_acme"), manifest=manifest(7, first=9))
        await refreshed(url)
    assert (await report_by(url, "org")).keys() == {"org_acme"}


@pytest.mark.parametrize("first", ["call", "event", "receipt"])
async def test_usage_belongs_to_the_org_that_its_event_bills(url: str, first: str) -> None:
    """Also if it was counted for another org, or held again only at its seal, for any order of reading."""
    kinds = list(enumerate(itertools.product(["", "org_old"], ["", "no_subscription"], [False, True])))
    calls = [call(n, at(20 + n % 3), held=held, org_id=org, part=f"{PREFIX}{n}") for n, (org, held, _) in kinds]
    receipts = [msgspec.structs.replace(receipt("completed", 5), transaction_id=f"{PREFIX}{n}") for n, _ in kinds]
    async with Writer(url) as writer:
        if first == "receipt":
            await writer.put(TOPICS.receipts, *receipts)
        if first != "event":
            await writer.put(TOPICS.enriched, *calls)
            await refreshed(url)
            assert (await report_by(url, "org")).keys() == {"", "org_old"}
        for n, (_, _, merged) in kinds:
            into, windows = (100 + n, [n]) if merged else (n, [])
            await writer.put(TOPICS.events, event(into, org_id="org_new"), manifest=manifest(*windows, first=into))
        if first == "event":
            await writer.put(TOPICS.enriched, *calls)
        await refreshed(url)
    assert {org: sums[0] for org, sums in (await report_by(url, "org")).items()} == {"org_new": 8}


@pytest.mark.parametrize("late", [False, True])
async def test_written_off_usage_is_billed_at_0(url: str, *, late: bool) -> None:
    calls = [
        call(n, at(20), held="no_mapping", org_id="", billed_usd=price) for n, price in ((7, None), (8, Decimal(2)))
    ]
    async with Writer(url) as writer:
        if not late:
            await writer.put(TOPICS.enriched, *calls)
            await refreshed(url)
            assert (await report_by(url, "org"))[""][2:] == (Decimal("0.00029"), Decimal("2.000145"))
        await writer.put(TOPICS.receipts, receipt("written_off", 5))
        if late:
            await writer.put(TOPICS.enriched, *calls)
        await refreshed(url)
    assert (await report_by(url, "org"))[""][2:] == (Decimal("0.00029"), Decimal(0))


async def test_calls_written_during_a_refresh_are_in_the_next_one(url: str) -> None:
    async with Writer(url) as writer:
        for number in range(1, 40):
            await asyncio.gather(writer.put(TOPICS.enriched, call(number, at(20))), refreshed(url))
    await refreshed(url)
    assert (await report_by(url, "day"))["2026-11-20"][0] == 39


async def test_a_pruned_month_keeps_its_sums(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, call(1, at(20)), call(3, at(20)))
        await refreshed(url)
        await rows(url, "DROP TABLE llm_usage_log_2026_11")
        await rows(url, "INSERT INTO forgotten_months VALUES ('2026-11-01')")
        await writer.put(TOPICS.enriched, call(2, at(20)))
        await refreshed(url)
    assert (await report_by(url, "day"))["2026-11-20"][0] == 2


async def test_the_details_of_a_call_are_in_the_log(url: str) -> None:
    context = CallContext(
        tags=["prod"], time_to_first_token=0.25, spend_logs_metadata={"session_id": "s1"}, key_metadata={"app": "chat"}
    )
    broken = call(3, at(20))
    broken.context = msgspec.Raw(b'{"tags":7}')
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, call(1, at(20), 1.5, context, byok=True), call(2, at(20), 0), broken)
    columns = "latency_ms, time_to_first_token, byok, session_id, app, tags"
    assert await rows(url, f"SELECT {columns} FROM llm_usage_log ORDER BY identity") == [
        (1500, Decimal("0.25"), True, "s1", "chat", ["prod"]),
        (None, None, False, None, None, None),
        (1500, None, False, None, None, None),
    ]


async def test_latency_speed_and_shares_are_shown(url: str) -> None:
    calls = [call(n, at(20), 0.1 * n, tokens_output=10 * n) for n in range(1, 101)]
    calls += [call(200, at(20), 60, status="failure", decision="unpriced"), call(201, at(20), 0, byok=True)]
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, *calls)
    await refreshed(url)
    with Database(url, size=1) as database:
        [row] = (await usage_of_all(database, FIRST, LAST, "day", 10)).rows
    result = row.as_object("day")
    assert (result["success_rate"], result["own_key_share"]) == ("0.990196", "0.009804")
    assert result["avg_latency_ms"] == "5594.1" and result["tokens_per_second"] == "100"
    assert 9600 / 1.19 < result["p95_latency_ms"] < 9600 * 1.19


async def test_the_endpoint_shows_everything_with_the_scope_and_only_own_usage_to_a_user_and_csv_runs_no_formula(
    kafka: Kafka, topic_prefix: str, url: str
) -> None:
    now = datetime.now(UTC) - timedelta(seconds=5)
    evil, mine = CallContext(tags=["=HYPERLINK(1)"]), {"user_id": "ada", "model": "gpt-5"}
    async with Writer(url) as writer:
        calls = [call(1, now, 1.0, evil, **mine), call(2, now, cost_usd=Decimal("0.000000000001"), user_id="eve")]
        await writer.put(TOPICS.enriched, *calls)
    await refreshed(url)
    async with identity_provider() as provider:
        settings = settings_for(kafka, topic_prefix, database_url=SecretStr(url), **names(provider))
        async with running_server(settings, ("api",)) as server:

            async def asked(by: dict[str, str], **query: str) -> Any:
                return await server.http.get(PATH, params=query, headers=by)

            result = (await asked(BEARER, group_by="user", days="2")).json()
            assert {row["user"]: row["billed_usd"] for row in result["rows"]} == {
                "ada": "0.000145",
                "eve": "0.000000000001",
            }
            assert result["groups"] == 2 and result["refreshed_at"]
            short = (await asked(BEARER, group_by="user", limit="1")).json()
            assert (len(short["rows"]), short["groups"]) == (1, 2)
            own = (await asked(provider.token(), group_by="model")).json()
            assert [(row["model"], row["calls"]) for row in own["rows"]] == [("gpt-5", 1)]
            refused = await asked(provider.token(), group_by="user")
            assert (refused.status_code, refused.json()["reason"]) == (403, "missing_scope")
            body = {"name": "n", "scopes": ["analytics:read"], "orgs": ["org_1"]}
            key = (await server.http.post("/api/v1/access/keys", json=body, headers=BEARER)).json()["token"]
            assert (await asked({"Authorization": f"Bearer {key}"})).json()["reason"] == "other_org"
            for wrong in ({"days": "0"}, {"days": "367"}, {"group_by": "session"}, {"limit": "1001"}):
                assert (await asked(BEARER, **wrong)).status_code == 422
            for headers, query in ((BEARER, {"format": "csv"}), (BEARER | {"Accept": "text/csv"}, {})):
                answer = await asked(headers, group_by="tag", **query)
                assert answer.headers["content-type"] == "text/csv; charset=utf-8"
                [row] = csv.DictReader(io.StringIO(answer.text))
                assert (row["tag"], row["billed_usd"]) == ("'=HYPERLINK(1)", "0.000145")


async def test_the_projectors_role_refreshes_and_the_readers_reads(postgres_url: str) -> None:
    async with owned_database(postgres_url) as owned:
        async with Writer(as_role(owned, PROJECTOR)) as writer:
            await writer.put(TOPICS.enriched, call(1, at(20), held="no_mapping", part=f"{PREFIX}7"))
            await writer.put(TOPICS.events, event(9), manifest=manifest(7, first=9))
        with Database(as_role(owned, PROJECTOR), size=1) as database:
            refresh = SummaryRefresh(database, failed=lambda _: None, show=lambda _: None, monotonic=lambda: 0.0)
            assert await refresh.once() is True
            assert await refresh.once() is False, "it was done a moment ago"
        assert (await report_by(as_role(owned, READER), "day"))["2026-11-20"][0] == 1
        with pytest.raises(Exception, match="denied"):
            await refreshed(as_role(owned, READER))
