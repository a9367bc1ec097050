"""Each index of `user_provider_keys` serves a question."""

from tests.support.database import rows

PLANS = {
    "SELECT * FROM user_provider_keys WHERE user_id = 'u1' AND provider = 'openai' AND is_active "
    "ORDER BY created_at DESC, key_id LIMIT 1": "user_provider_keys_live",
    "SELECT * FROM user_provider_keys WHERE user_id = 'u1' ORDER BY created_at DESC": "user_provider_keys_user_id_provider_key_name_key",
    "SELECT count(*) FROM user_provider_keys WHERE is_active AND rotation_due <= '2026-01-01'": "user_provider_keys_due",
    "SELECT EXISTS (SELECT FROM user_provider_keys WHERE is_active AND secret_id = 'x')": "user_provider_keys_secret",
}


async def test_each_index_is_used_by_its_query(database: str) -> None:
    await rows(
        database,
        """INSERT INTO user_provider_keys (key_id, user_id, provider, key_name, encrypted_key, secret_id, masked_key, rotation_due)
        SELECT 'pk_' || n, 'u' || n % 9000, 'openai', n::text, 'x', 's', '...', '2026-06-01' FROM generate_series(1, 20000) n""",
    )
    await rows(database, "ANALYZE user_provider_keys")
    for query, index in PLANS.items():
        plan = "\n".join(line for (line,) in await rows(database, f"EXPLAIN {query}"))
        assert index in plan, plan
