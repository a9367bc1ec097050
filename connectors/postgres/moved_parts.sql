-- Stores those of these parts whose calls may be billed otherwise than they were debited, and returns them. $1: ids of events, of held
-- parts that were released into them, or of parts that were written off.
-- All calls of a part that were not held had one org and one factor, so one of them shows it for all; a price of 0 does not show
-- the factor. A part without a call may get its calls at this moment. Of one that was found before, a part of the calls may be
-- corrected already, and the one that is looked at among them.
INSERT INTO corrected_parts (part)
SELECT DISTINCT p.part
FROM unnest($1::text[]) AS o (part)
JOIN usage_parts p ON p.part = o.part
LEFT JOIN usage_parts e ON e.part = CASE WHEN p.event IS NULL THEN p.released_in ELSE p.part END
LEFT JOIN LATERAL (SELECT u.* FROM llm_usage_log u WHERE u.part = o.part AND u.part <> '' LIMIT 1) AS c ON true
LEFT JOIN LATERAL (SELECT t.billed_usd FROM call_terms t WHERE t.identity = c.identity AND t.month = c.month) AS t ON true
WHERE p.held_calls > 0 OR p.event IS NULL OR c.identity IS NULL OR c.org_id <> e.org_id
    OR c.billed_usd <> t.billed_usd OR COALESCE(c.price_usd, c.billed_usd) = 0
    OR EXISTS (SELECT FROM corrected_parts m WHERE m.part = p.part)
ORDER BY p.part
ON CONFLICT (part) DO UPDATE SET done = false
RETURNING part
