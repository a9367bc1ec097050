-- A call on the caller's own subscription at the provider (`own_subscription`) was paid by the caller, like one on the user's own key.
-- Its cost was a cost of the operator, and a loss. With CLIENT_OAUTH_POLICY=bill the log does not tell such a call.
CREATE OR REPLACE VIEW usage_calls AS
SELECT
    (u.ended_at AT TIME ZONE 'UTC')::date AS day, u.month, u.ended_at, u.customer_id, u.user_id,
    CASE WHEN e.event IS NULL THEN u.org_id ELSE COALESCE(e.org_id, u.org_id) END AS org_id,
    u.provider, u.model, u.team_id, u.key_hash, u.key_alias, u.tags, u.power_level, u.rate, u.decision,
    u.status,
    c.once * u.tokens_input AS tokens_input, c.once * u.tokens_output AS tokens_output,
    c.once * u.total_tokens AS total_tokens, c.once * u.cached_tokens AS cached_tokens,
    c.once * u.reasoning_tokens AS reasoning_tokens,
    CASE WHEN c.own THEN 0 ELSE c.once * u.cost_usd END AS provider_cost_usd,
    CASE WHEN c.own THEN c.once * u.cost_usd ELSE 0 END AS own_key_cost_usd,
    CASE
        WHEN e.event IS NULL AND p.status = 'written_off' THEN 0
        WHEN u.billed_usd IS NOT NULL THEN u.billed_usd
        WHEN u.decision IN ('billable', 'failed_with_cost') THEN u.cost_usd
        ELSE 0
    END AS billed_usd,
    c.own AS own_key,
    CASE
        WHEN u.ended_at > u.started_at
        THEN LEAST(GREATEST(1, round(extract(epoch FROM u.ended_at - u.started_at) * 1000)), 86400000)::bigint
    END AS latency_ms
FROM llm_usage_log u
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN u.decision = 'carried' THEN 0 ELSE 1 END,
        COALESCE(u.byok OR u.decision IN ('byok', 'own_subscription'), false)
) AS c (once, own)
LEFT JOIN usage_parts p ON u.part <> '' AND p.part = u.part
LEFT JOIN usage_parts e ON e.part = CASE WHEN p.event IS NULL THEN p.released_in ELSE p.part END
WHERE u.decision <> 'metered';

-- The sums of their days are made again.
INSERT INTO usage_days_changed
SELECT DISTINCT (ended_at AT TIME ZONE 'UTC')::date FROM llm_usage_log WHERE decision = 'own_subscription';
