-- Stores billed jobs of these rows that are billed to another customer too.
INSERT INTO doubled_calls (
    identity, other, kind, started_at, request_id, other_request_id, customer_id, other_customer_id, cost_usd
)
SELECT DISTINCT ON (LEAST(a.identity, b.identity), GREATEST(a.identity, b.identity))
    LEAST(a.identity, b.identity), GREATEST(a.identity, b.identity), 'job', b.started_at, b.request_id, a.request_id,
    b.customer_id, a.customer_id, a.cost_usd
FROM unnest($1::bytea[], $2::text[]) AS new (identity, month)
JOIN llm_usage_log a ON a.identity = new.identity AND a.month = new.month::date
JOIN llm_usage_log b ON
    md5(regexp_replace(regexp_replace(b.request_id, '_cache_hit[0-9.]*$', ''), '(_batch_cost|_background_cost|_video_cost)$', ''))
    = md5(regexp_replace(regexp_replace(a.request_id, '_cache_hit[0-9.]*$', ''), '(_batch_cost|_background_cost|_video_cost)$', ''))
WHERE a.part <> '' AND b.part <> '' AND b.customer_id <> a.customer_id AND b.identity <> a.identity
    AND a.request_id <> ''
ORDER BY 1, 2
ON CONFLICT DO NOTHING
