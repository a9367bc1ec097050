-- Records that became no row: what no reader can read, and what Postgres refused. The record itself stays in its topic.

CREATE TABLE unprojected_records (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    recorded_ms bigint NOT NULL,
    reason text NOT NULL CHECK (reason IN ('unreadable', 'row_refused')),
    problem text NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, "offset")
);

CREATE INDEX unprojected_records_noticed ON unprojected_records (noticed_at);

-- What an end overtook is billed by an event in its stead, whose id is its own and `-again`, as often as ends followed: the
-- call is done with once that event is. What shows where a call was billed is that event.
CREATE OR REPLACE VIEW litellm_usage_events AS
SELECT
    encode(u.identity, 'hex')::uuid AS id,
    u.customer_id AS customer_external_id,
    u.ended_at AS "timestamp",
    CASE
        WHEN u.part = '' THEN u.recorded_at
        WHEN again.part IS NOT NULL THEN CASE WHEN again.status = 'completed' THEN again.processed_at END
        WHEN p.status = 'written_off' OR e.status = 'completed' THEN COALESCE(e.processed_at, p.processed_at)
    END AS processed_at,
    u.model,
    u.provider,
    u.tokens_input,
    u.tokens_output,
    u.total_tokens,
    u.cost_usd,
    u.request_id,
    u.key_hash AS api_key_hash,
    COALESCE(again.org_id, NULLIF(u.org_id, ''), e.org_id) AS org_id,
    COALESCE(again.external_subscription_id, NULLIF(u.external_subscription_id, ''), e.external_subscription_id)
        AS external_subscription_id,
    COALESCE(again.part, CASE WHEN e.event IS NOT NULL THEN e.part END) AS transaction_id,
    u.decision,
    u.month
FROM llm_usage_log u
LEFT JOIN usage_parts p ON p.part = u.part
LEFT JOIN usage_parts e ON e.part = COALESCE(p.released_in, p.part)
LEFT JOIN LATERAL (
    SELECT a.part, a.status, a.processed_at, a.org_id, a.external_subscription_id
    FROM usage_parts a
    WHERE e.status = 'failed' AND a.event IS NOT NULL
        AND a.part = ANY (ARRAY[e.part || '-again', e.part || '-again-again', e.part || '-again-again-again'])
    ORDER BY length(a.part) DESC
    LIMIT 1
) again ON true;

-- Who may not make tables may still write a call of a new month: the function acts for the tables' owner, in their schema
-- alone, whatever its caller's search path says.
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION ensure_usage_month(date) SECURITY DEFINER SET search_path = %I, pg_temp', current_schema()
    );
    REVOKE ALL ON FUNCTION ensure_usage_month(date) FROM PUBLIC;
END
$$;
