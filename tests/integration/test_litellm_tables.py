"""The documented tables beside the credits with real Postgres: provider keys, the usage log, health, and the summary.

The classes have the names of the specification's test suite; `test_litellm_schema.py` has those about credits.
"""

from decimal import Decimal

from schemas.context import CallContext
from tests.integration.test_analytics import at, call
from tests.support.columns import columns_of, types_of
from tests.support.credits import sqlstate
from tests.support.database import rows
from tests.support.history import TOPICS
from tests.support.projection import Writer

COLUMNS = {
    "user_provider_keys": "created_at created_by encrypted_key is_active key_id key_name last_used_at masked_key provider "
    "revoked_at rotation_due secret_id updated_at use_count user_id",
    "llm_usage_log": "alias app billed_usd byok cache_hit cache_write_tokens cached_tokens call_id call_type cost_usd customer_id decision "
    "ended_at error_category external_subscription_id held id_kind identity images key_alias key_hash latency_ms model "
    "month note org_id organization_id part power_level price_usd provider rate raw_offset raw_partition "
    "reasoning_tokens recorded_at request_id seconds session_id started_at status tags team_id time_to_first_token "
    "tokens_input tokens_output total_tokens user_id",
    "provider_health": "avg_latency_ms calls consecutive_failures last_call_at model p95_latency_ms provider rate_limited "
    "since status success_rate updated_at",
    "llm_usage_summary": "avg_latency_ms avg_tokens_per_second billed_usd byok_requests completion_tokens day failed_requests "
    "model prompt_tokens provider success_rate successful_requests total_cost total_requests total_tokens user_id",
    "credit_purchases": "account contents created_at created_by credits currency ending idempotency_key live name package_id "
    "price purchase_id session_id",
    "stripe_customers": "account created_at customer_id",
    "stripe_payments": "created_at facts payment_intent posted postings purchase_id updated_at",
    "stripe_events": "detail event_id event_type outcome payment_intent purchase_id received_at",
}
KEY = "INSERT INTO user_provider_keys (key_id, user_id, provider, key_name, encrypted_key, secret_id, masked_key, rotation_due) VALUES "
#: Statements that the database refuses, with the SQLSTATE of the refusal.
REFUSED = {
    f"{KEY} ('pk_2', 'ada', 'openai', 'main', 'x', 's', '...', now())": "23505",
    f"{KEY} ('pk_1', 'ada', 'openai', 'other', 'x', 's', '...', now())": "23505",
    f"{KEY} ('pk_2', '', 'openai', 'main', 'x', 's', '...', now())": "23514",
    f"{KEY} ('pk_2', 'ada', 'OpenAI', 'main', 'x', 's', '...', now())": "23514",
    f"{KEY} ('pk_2', 'ada', 'openai', '', 'x', 's', '...', now())": "23514",
    f"{KEY} ('pk_2', 'ada', 'openai', repeat('x', 1025), 'x', 's', '...', now())": "23514",
    f"{KEY} ('pk_2', 'ada', 'openai', 'other', NULL, 's', '...', now())": "23514",
    "UPDATE user_provider_keys SET is_active = false": "23514",
    "UPDATE user_provider_keys SET use_count = -1": "23514",
    "INSERT INTO provider_health (provider, model, status, since, calls) VALUES ('p', 'm', 'dead', now(), 1)": "23514",
    "INSERT INTO provider_health (provider, model, status, since, calls) VALUES ('p', 'm', 'down', now(), -1)": "23514",
    "INSERT INTO provider_health (provider, model, status, since, calls, success_rate) VALUES ('p', 'm', 'down', now(), 1, 2)": "23514",
    "INSERT INTO llm_usage_log SELECT * FROM llm_usage_log": "23505",
    "UPDATE llm_usage_log SET identity = 'short'": "23514",
    "UPDATE llm_usage_log SET started_at = started_at + interval '40 days'": "23514",
}
#: What a user asks, and the index that answers it.
QUESTIONS = {
    "SELECT balance FROM user_credits WHERE account = 'user:u7'": "user_credits_pkey",
    "SELECT * FROM credit_transactions WHERE user_id = 'u7' ORDER BY created_at DESC LIMIT 20": "credit_transactions_user",
    "SELECT * FROM llm_usage_log WHERE customer_id = 'u7' AND month = '2026-11-01' ORDER BY ended_at DESC": "customer_id_ended",
    "SELECT * FROM llm_usage_summary WHERE user_id = 'u7' AND day >= '2026-11-01'": "usage_summary_days_user",
}


class TestSchemaStructure:
    async def test_every_table_has_its_columns(self, url: str) -> None:
        assert await columns_of(url, COLUMNS) == COLUMNS

    async def test_exact_values_are_numeric_and_times_have_a_zone(self, url: str) -> None:
        assert await types_of(url, COLUMNS, "_usd$|_cost$|^credits$|^posted$|_rate$") == {"numeric"}
        assert await types_of(url, COLUMNS, "_at$|^since$") == {"timestamp with time zone"}

    async def test_five_triggers_update_updated_at(self, url: str) -> None:
        triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%updated_at' AND NOT tgisinternal"
        assert await rows(url, triggers) == [(5,)]
        await rows(url, f"{KEY} ('pk_1', 'ada', 'openai', 'main', 'x', 's', '...', now())")
        await rows(url, "INSERT INTO stripe_payments (payment_intent) VALUES ('pi_1')")
        for table, change in (("user_provider_keys", "key_name = 'new'"), ("stripe_payments", "postings = 1")):
            await rows(url, f"ALTER TABLE {table} DISABLE TRIGGER USER")
            await rows(url, f"UPDATE {table} SET updated_at = '2000-01-01Z'")
            await rows(url, f"ALTER TABLE {table} ENABLE TRIGGER USER")
            await rows(url, f"UPDATE {table} SET {change}")
            recent = f"SELECT updated_at > now() - interval '1 hour' FROM {table}"
            assert await rows(url, recent) == [(True,)], table


class TestProviderKeys:
    async def test_a_name_is_unique_for_a_provider_and_a_key_is_erased_when_it_is_revoked(self, url: str) -> None:
        await rows(url, f"{KEY} ('pk_1', 'ada', 'openai', 'main', 'x', 's', '...', now())")
        await rows(url, f"{KEY} ('pk_3', 'bob', 'openai', 'main', 'x', 's', '...', now())")
        revoked = "UPDATE user_provider_keys SET is_active = false, revoked_at = now(), encrypted_key = NULL"
        assert await sqlstate(url, revoked) == ""
        assert await rows(url, "SELECT count(*) FROM user_provider_keys WHERE is_active") == [(0,)]


class TestConstraints:
    async def test_the_database_refuses_impossible_values(self, url: str) -> None:
        await rows(url, f"{KEY} ('pk_1', 'ada', 'openai', 'main', 'x', 's', '...', now())")
        async with Writer(url) as writer:
            await writer.put(TOPICS.enriched, call(1, at(20)))
        assert {statement: await sqlstate(url, statement) for statement in REFUSED} == REFUSED


class TestUsageLog:
    async def test_a_call_is_stored_with_everything_reported_about_it(self, url: str) -> None:
        context = CallContext(
            tags=["prod"],
            time_to_first_token=0.25,
            spend_logs_metadata={"session_id": "s1"},
            key_metadata={"app": "chat"},
        )
        result = {"user_id": "ada", "provider": "openai", "model": "gpt-5", "request_id": "r1", "power_level": "eco"}
        counts = {"tokens_input": 1200, "tokens_output": 350, "total_tokens": 1550}
        failed = call(
            2, at(20), 2.0, CallContext(error_code="429"), status="failure", decision="failed_call", request_id="r2"
        )
        async with Writer(url) as writer:
            await writer.put(TOPICS.enriched, call(1, at(20), 1.5, context, byok=True, **result, **counts), failed)
        columns = (
            "user_id, provider, model, tokens_input, tokens_output, total_tokens, cost_usd, status, request_id, power_level, "
            "latency_ms, byok, session_id, app, tags, time_to_first_token, "
            "round(1000 * tokens_output / NULLIF(latency_ms, 0)::numeric, 1)"
        )
        assert await rows(url, f"SELECT {columns} FROM llm_usage_log WHERE request_id = 'r1'") == [
            (
                *("ada", "openai", "gpt-5", 1200, 350, 1550, Decimal("0.000145"), "success", "r1", "eco"),
                *(1500, True, "s1", "chat", ["prod"], Decimal("0.25"), Decimal("233.3")),
            )
        ]
        categories = "SELECT status, error_category FROM llm_usage_log WHERE request_id = 'r2'"
        assert await rows(url, categories) == [("failure", "rate_limit")]

    async def test_a_call_reported_twice_has_one_row(self, url: str) -> None:
        """LiteLLM gives one request id to several reports, so the call's identity is unique and not its request id."""
        async with Writer(url) as writer:
            await writer.put(TOPICS.enriched, call(1, at(20), request_id="r"), call(2, at(20), request_id="r"))
            await writer.put(TOPICS.enriched, call(1, at(20), request_id="r"))
        assert await rows(url, "SELECT count(*) FROM llm_usage_log") == [(2,)]


class TestMaterializedView:
    async def test_the_summary_has_a_row_for_each_day_user_provider_and_model(self, url: str) -> None:
        result = {"user_id": "ada", "provider": "openai", "model": "gpt-5", "tokens_output": 30}
        async with Writer(url) as writer:
            await writer.put(TOPICS.enriched, call(1, at(20), 1.0, **result), call(2, at(20), 2.0, byok=True, **result))
            await writer.put(
                TOPICS.enriched, call(3, at(20), 3.0, status="failure", decision="failed_call", part="", **result)
            )
        assert await rows(url, "SELECT * FROM llm_usage_summary") == []
        await rows(url, "SELECT refresh_usage_summary()")
        columns = (
            "day::text, user_id, provider, model, total_requests, successful_requests, failed_requests, completion_tokens, "
            "avg_latency_ms, avg_tokens_per_second, success_rate, byok_requests"
        )
        assert await rows(url, f"SELECT {columns} FROM llm_usage_summary") == [
            ("2026-11-20", "ada", "openai", "gpt-5", 3, 2, 1, 90, 2000, 20, Decimal("0.666667"), 1)
        ]


class TestPerformance:
    async def test_a_users_query_reads_only_the_users_rows(self, url: str) -> None:
        """With the server's settings unchanged."""
        async with Writer(url) as writer:
            many = (call(n, at(20), customer_id=f"u{n}", user_id=f"u{n}") for n in range(2000))
            await writer.put(TOPICS.enriched, *many)
        await rows(url, "SELECT add_user_credits('u' || n, 10, 'purchase') FROM generate_series(1, 2000) AS n")
        await rows(url, "SELECT refresh_usage_summary()")
        await rows(url, "ANALYZE")
        for question, index in QUESTIONS.items():
            plan = "\n".join(line for (line,) in await rows(url, f"EXPLAIN {question}"))
            assert index in plan and "Seq Scan" not in plan, plan
