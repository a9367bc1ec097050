-- Stores calls of these rows that are billed in another part already: a copy that names another customer, or that came with
-- another TOPIC_PREFIX, is counted by a ledger that does not know the first one.
INSERT INTO doubled_calls (
    identity, other, kind, started_at, request_id, other_request_id, customer_id, other_customer_id, cost_usd
)
SELECT a.identity, a.identity, 'copy', a.started_at, a.request_id, a.request_id, a.customer_id, new.customer_id, a.cost_usd
FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[]) AS new (identity, month, part, customer_id)
JOIN llm_usage_log a ON a.identity = new.identity AND a.month = new.month::date
WHERE a.part <> '' AND a.part <> new.part AND a.decision <> 'metered'
ON CONFLICT DO NOTHING
