-- Takes calls out of parts in which they will never be billed: a rebuilt ledger has counted the same records of the raw topic
-- again, in other parts (docs/adr/0043), because a mapping or a setting has changed meanwhile. usage.sql then writes them anew.
-- Returns these calls. Stores their new parts, because the events of these may bill another org than the one that was debited.
-- A part that has an event, or was given up, keeps its calls. A part's name without its last number names deployment, raw topic
-- and partition.
WITH again AS MATERIALIZED (
    SELECT log.identity, log.month, log.part, log.held, log.cost_usd, given.part AS counted_in
    FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[]) AS given (identity, month, part, raw_offset)
    JOIN llm_usage_log log ON log.identity = given.identity AND log.month = given.month::date
    LEFT JOIN usage_parts p ON p.part = log.part
    WHERE log.raw_partition = $5 AND log.raw_offset = given.raw_offset AND log.part <> given.part
        AND regexp_replace(log.part, '[0-9]+$', '') = regexp_replace(given.part, '[0-9]+$', '') AND log.part ~ '-[0-9]+$'
        AND p.event IS NULL AND p.released_in IS NULL AND p.status IS NULL
), taken AS (
    UPDATE llm_usage_log AS log
    SET decision = 'lost', part = '', held = '', billed_usd = NULL, price_usd = NULL
    FROM again WHERE log.identity = again.identity AND log.month = again.month
), left_held AS (
    UPDATE usage_parts AS p
    SET held_calls = p.held_calls - s.calls, held_cost_usd = p.held_cost_usd - s.usd
    FROM (SELECT part, count(*) AS calls, sum(cost_usd) AS usd FROM again WHERE held <> '' GROUP BY part) AS s
    WHERE p.part = s.part
), to_correct AS (
    INSERT INTO corrected_parts (part, done) SELECT DISTINCT counted_in, true FROM again ORDER BY 1 ON CONFLICT DO NOTHING
)
SELECT identity, month::text FROM again
