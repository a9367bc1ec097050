-- Prepaid users of every tier, for `meterbridge db init --test-data`. Repeating it adds nothing.

INSERT INTO user_credits (user_id, tier) VALUES
    ('test-free', 'free'), ('test-starter', 'starter'), ('test-professional', 'professional'), ('test-enterprise', 'enterprise')
ON CONFLICT DO NOTHING;

SELECT add_user_credits('test-free', 1, 'bonus', p_metadata => '{"idempotency_key": "test-data:free"}');
SELECT add_user_credits(
    'test-starter', 10, 'purchase', 'test', p_package_id => (SELECT package_id FROM credit_packages WHERE name = 'Starter'),
    p_metadata => '{"idempotency_key": "test-data:starter"}'
);
SELECT add_user_credits('test-professional', 100, 'purchase', 'test', p_metadata => '{"idempotency_key": "test-data:professional"}');
SELECT add_user_credits('test-enterprise', 500, 'purchase', 'test', p_metadata => '{"idempotency_key": "test-data:enterprise"}');
SELECT debit_user_credits(
    'test-starter', 0.0125, 'openai', 'gpt-5', 1200, 350, 'balanced', '{"idempotency_key": "test-data:call"}'
);
