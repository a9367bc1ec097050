-- Stores billed jobs of these rows that are billed to another customer too, or that this customer was billed for in another month: a
-- ledger forgets a job 35 days after its last report.
INSERT INTO doubled_calls (
    identity, other, kind, started_at, request_id, other_request_id, customer_id, other_customer_id, cost_usd
)
SELECT DISTINCT ON (LEAST(a.identity, b.identity), GREATEST(a.identity, b.identity))
    LEAST(a.identity, b.identity), GREATEST(a.identity, b.identity), 'job', b.started_at, b.request_id, a.request_id,
    b.customer_id, a.customer_id, a.cost_usd
FROM unnest($1::bytea[], $2::text[]) AS new (identity, month)
JOIN llm_usage_log a ON a.identity = new.identity AND a.month = new.month::date
CROSS JOIN LATERAL (
    SELECT o.identity, o.started_at, o.request_id, o.customer_id
    FROM llm_usage_log o
    WHERE md5(regexp_replace(regexp_replace(o.request_id, '_cache_hit[0-9.]*$', ''), '(_batch_cost|_background_cost|_video_cost)$', ''))
        = md5(regexp_replace(regexp_replace(a.request_id, '_cache_hit[0-9.]*$', ''), '(_batch_cost|_background_cost|_video_cost)$', ''))
        AND o.part <> '' AND o.customer_id <> a.customer_id AND o.identity <> a.identity AND a.request_id <> ''
    UNION ALL
    SELECT o.identity, o.started_at, o.request_id, o.customer_id
    FROM llm_usage_log o WHERE o.identity = a.identity AND o.month <> a.month AND o.part <> ''
) AS b
WHERE a.part <> ''
ORDER BY 1, 2
ON CONFLICT DO NOTHING
