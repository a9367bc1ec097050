-- The usage log has the prices of the events that bill its calls: of a call that was held, the payer's factor was not known.
UPDATE llm_usage_log u SET billed_usd = t.billed_usd, price_usd = COALESCE(u.price_usd, u.billed_usd)
FROM unnest($1::bytea[], $2::text[]) AS c (identity, month)
JOIN call_terms t ON t.identity = c.identity AND t.month = c.month::date
JOIN usage_parts p ON p.part = t.part
WHERE u.identity = c.identity AND u.month = c.month::date AND t.decided AND u.billed_usd <> t.billed_usd
    AND p.status IS DISTINCT FROM 'written_off'
