-- The usage log has the prices of the events that bill its calls: of a call that was held, the payer's factor was not known.
-- The rows are locked in the order in which usage.sql writes them, so that a repetition of the calls and this cannot deadlock.
WITH priced AS MATERIALIZED (
    SELECT u.identity, u.month, t.billed_usd
    FROM unnest($1::bytea[], $2::text[]) AS c (identity, month)
    JOIN llm_usage_log u ON u.identity = c.identity AND u.month = c.month::date
    JOIN call_terms t ON t.identity = c.identity AND t.month = c.month::date
    JOIN usage_parts p ON p.part = t.part
    WHERE t.decided AND u.billed_usd <> t.billed_usd AND p.status IS DISTINCT FROM 'written_off'
    ORDER BY u.identity, u.month
    FOR UPDATE OF u
)
UPDATE llm_usage_log u SET billed_usd = p.billed_usd, price_usd = COALESCE(u.price_usd, u.billed_usd)
FROM priced p
WHERE u.identity = p.identity AND u.month = p.month
