-- Stores pairs of billed calls that have two request ids but are one request: LiteLLM's bridges log one request twice.
INSERT INTO doubled_calls (
    identity, other, kind, started_at, request_id, other_request_id, customer_id, other_customer_id, cost_usd
)
SELECT DISTINCT ON (LEAST(a.identity, b.identity), GREATEST(a.identity, b.identity))
    LEAST(a.identity, b.identity), GREATEST(a.identity, b.identity), 'bridge', b.started_at, b.request_id, a.request_id,
    b.customer_id, a.customer_id, a.cost_usd
FROM unnest($1::bytea[], $2::text[]) AS new (identity, month)
JOIN llm_usage_log a ON a.identity = new.identity AND a.month = new.month::date
JOIN llm_usage_log b ON b.alias = a.alias AND b.started_at = a.started_at AND b.month = a.month
WHERE a.part <> '' AND b.part <> '' AND a.call_id <> '' AND b.call_id = a.call_id AND b.request_id <> a.request_id
    AND b.identity <> a.identity AND b.status = a.status AND b.ended_at = a.ended_at
    AND b.total_tokens = a.total_tokens AND b.cost_usd = a.cost_usd
ORDER BY 1, 2
ON CONFLICT DO NOTHING
