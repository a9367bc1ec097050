-- Takes calls out of parts in which they will never be billed as they are: a rebuilt ledger has counted them again
-- (docs/adr/0043), with another result or in other parts, because a mapping or a setting has changed meanwhile. Which calls these
-- are, `is_recounted` of rows.py decides. usage.sql then writes them anew. Returns these calls. Stores their new parts, because
-- the events of these may bill another org than the one that was debited. A part that has an event, or was given up, keeps its
-- calls; if they are counted in it again, the event is that of the second count, because no call of an event is counted again.
WITH again AS MATERIALIZED (
    SELECT log.identity, log.month, log.part, log.held, log.cost_usd, given.part AS counted_in, given.held AS held_now
    FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[]) AS given (identity, month, part, held)
    JOIN llm_usage_log log ON log.identity = given.identity AND log.month = given.month::date
    LEFT JOIN usage_parts p ON p.part = log.part
    WHERE log.part = given.part OR (p.event IS NULL AND p.released_in IS NULL AND p.status IS NULL)
), taken AS (
    UPDATE llm_usage_log AS log
    SET decision = 'lost', part = '', held = '', billed_usd = NULL, price_usd = NULL
    FROM again WHERE log.identity = again.identity AND log.month = again.month
), left_held AS (
    -- A part without held calls, or whose calls are held anew, has the reason and the payer of those that come.
    UPDATE usage_parts AS p
    SET held_calls = p.held_calls - s.calls, held_cost_usd = p.held_cost_usd - s.usd,
        held_customer_id = CASE WHEN s.anew OR s.calls = p.held_calls THEN NULL ELSE p.held_customer_id END,
        held_id_kind = CASE WHEN s.anew OR s.calls = p.held_calls THEN NULL ELSE p.held_id_kind END,
        held_org_id = CASE WHEN s.anew OR s.calls = p.held_calls THEN NULL ELSE p.held_org_id END,
        held_reason = CASE WHEN s.anew OR s.calls = p.held_calls THEN NULL ELSE p.held_reason END
    FROM (
        SELECT part, count(*) AS calls, sum(cost_usd) AS usd, bool_or(counted_in = part AND held_now <> '') AS anew
        FROM again WHERE held <> '' GROUP BY part
    ) AS s
    WHERE p.part = s.part
), to_correct AS (
    INSERT INTO corrected_parts (part, done) SELECT DISTINCT counted_in, true FROM again ORDER BY 1 ON CONFLICT DO NOTHING
)
SELECT identity, month::text FROM again
