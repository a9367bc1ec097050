-- Of a call, the org and the subscription that its event bills, as in `usage_calls`: they may be others than those that it was counted
-- or held for, and Lago may have got the event for another subscription than it was sealed for.
CREATE OR REPLACE VIEW litellm_usage_events AS
SELECT
    encode(u.identity, 'hex')::uuid AS id,
    u.customer_id AS customer_external_id,
    u.ended_at AS "timestamp",
    CASE
        WHEN u.part = '' THEN u.recorded_at
        WHEN again.part IS NOT NULL THEN CASE WHEN again.status = 'completed' THEN again.processed_at END
        WHEN p.status = 'written_off' OR e.status = 'completed' THEN COALESCE(e.processed_at, p.processed_at)
    END AS processed_at,
    u.model,
    u.provider,
    u.tokens_input,
    u.tokens_output,
    u.total_tokens,
    u.cost_usd,
    u.request_id,
    u.key_hash AS api_key_hash,
    COALESCE(again.org_id, e.org_id, NULLIF(u.org_id, '')) AS org_id,
    COALESCE(
        again.posted_to, again.external_subscription_id, e.posted_to, e.external_subscription_id,
        NULLIF(u.external_subscription_id, '')
    ) AS external_subscription_id,
    COALESCE(again.part, CASE WHEN e.event IS NOT NULL THEN e.part END) AS transaction_id,
    u.decision,
    u.month
FROM llm_usage_log u
LEFT JOIN usage_parts p ON p.part = u.part
LEFT JOIN usage_parts e ON e.part = COALESCE(p.released_in, p.part)
LEFT JOIN LATERAL (
    SELECT a.part, a.status, a.processed_at, a.org_id, a.external_subscription_id, a.posted_to
    FROM usage_parts a
    WHERE e.status = 'failed' AND a.event IS NOT NULL
        AND a.part = ANY (ARRAY[e.part || '-again', e.part || '-again-again', e.part || '-again-again-again'])
    ORDER BY length(a.part) DESC
    LIMIT 1
) again ON true;
