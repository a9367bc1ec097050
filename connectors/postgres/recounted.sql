-- Takes calls out of parts in which they will never be billed as they are: a rebuilt ledger has counted them again
-- (docs/adr/0043), with another result, in other parts or as not billed, or has rejected them, because a mapping or a setting has
-- changed meanwhile. Which calls these are, `is_recounted` of rows.py decides. usage.sql then writes them anew. Returns these calls.
-- Stores their new parts, because the events of these may bill another org than the one that was debited. No call of an event is
-- counted again, so an event of the old part, if there is one, is that of the calls that were counted in it again: `reconcile` checks
-- this in the parts that are stored as `recounted`. Only a part that is named by the identity of its call does not show its ledger: if
-- it has an event, or was given up, it keeps its call.
WITH again AS MATERIALIZED (
    SELECT log.identity, log.month, log.part, log.held, log.cost_usd, given.part AS counted_in, given.held AS held_now
    FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[]) AS given (identity, month, part, held)
    JOIN llm_usage_log log ON log.identity = given.identity AND log.month = given.month::date
    LEFT JOIN usage_parts p ON p.part = log.part
    WHERE log.part = given.part OR strpos(log.part, '-') > 0 OR (p.event IS NULL AND p.released_in IS NULL AND p.status IS NULL)
), taken AS (
    UPDATE llm_usage_log AS log
    SET decision = '', part = '', held = '', billed_usd = NULL, price_usd = NULL
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
    INSERT INTO corrected_parts AS c (part, done, recounted)
    SELECT s.part, true, bool_or(s.was_left) FROM (
        SELECT counted_in AS part, false AS was_left FROM again WHERE counted_in <> ''
        UNION ALL SELECT part, part <> counted_in FROM again
    ) AS s
    GROUP BY s.part ORDER BY s.part
    ON CONFLICT (part) DO UPDATE SET recounted = true, found_at = now() WHERE EXCLUDED.recounted
)
SELECT identity, month::text FROM again
