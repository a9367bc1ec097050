-- One row a part: usage that was held, the Lago event it became, and what became of that. Three topics write it, each
-- its own columns, in whatever order they are read; a part's id is the transaction id of its event.

CREATE TABLE usage_parts (
    part text COLLATE "C" PRIMARY KEY,
    -- from litellm.usage.enriched, for calls that were held when they were counted
    held_customer_id text COLLATE "C",
    held_id_kind text,
    held_org_id text COLLATE "C",
    held_reason text,
    held_calls bigint NOT NULL DEFAULT 0,
    held_cost_usd numeric NOT NULL DEFAULT 0,
    held_since timestamptz,
    -- from billing.lago.events
    released_in text COLLATE "C",
    event jsonb,
    external_subscription_id text COLLATE "C",
    org_id text COLLATE "C",
    customer_id text COLLATE "C",
    amount_cents numeric,
    raw_partition integer,
    first_offset bigint,
    last_offset bigint,
    calls bigint,
    windows bigint[],
    seal_seq bigint,
    sealed_at timestamptz,
    -- from billing.receipts
    status text CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'written_off')),
    attempts integer NOT NULL DEFAULT 0,
    reason text,
    processed_at timestamptz,
    last_retry_at timestamptz
);

-- Not unique, though it is: ON CONFLICT watches one unique index, and two writers of one part would trip over the other.
CREATE INDEX usage_parts_id ON usage_parts ((md5(part)::uuid));
CREATE INDEX usage_parts_org ON usage_parts (org_id, sealed_at);
CREATE INDEX usage_parts_status ON usage_parts (
    (CASE WHEN status = 'written_off' THEN 'failed' ELSE COALESCE(status, 'pending') END), (LEAST(held_since, sealed_at))
);
CREATE INDEX usage_parts_released ON usage_parts (released_in) WHERE released_in IS NOT NULL;

CREATE VIEW lago_events AS
SELECT
    part AS transaction_id, external_subscription_id, org_id, customer_id, event, amount_cents,
    raw_partition, first_offset, last_offset, calls, windows, seal_seq, sealed_at,
    COALESCE(status, 'pending') AS status, attempts, reason, processed_at, last_retry_at
FROM usage_parts
WHERE event IS NOT NULL;

-- transaction_id: the event it was released in, of its own id or another's. NULL while it is held, or given up.
CREATE VIEW held_parts AS
SELECT
    part, held_customer_id AS customer_id, held_id_kind AS id_kind, held_org_id AS org_id, held_reason AS reason,
    held_calls AS calls, held_cost_usd AS cost_usd, held_since AS first_seen,
    CASE WHEN event IS NOT NULL THEN part ELSE released_in END AS transaction_id,
    CASE WHEN status = 'written_off' THEN processed_at END AS written_off_at
FROM usage_parts
WHERE held_calls > 0;

CREATE VIEW event_queue AS
SELECT
    md5(part)::uuid AS id,
    part AS transaction_id,
    NULLIF(CASE WHEN event IS NULL THEN held_org_id ELSE org_id END, '') AS external_customer_id,
    event AS event_data,
    CASE WHEN event IS NULL THEN held_customer_id ELSE customer_id END AS customer_mapping_id,
    CASE WHEN status = 'written_off' THEN 'failed' ELSE COALESCE(status, 'pending') END AS status,
    attempts AS retry_count,
    NULLIF(CASE WHEN status = 'written_off' THEN status WHEN event IS NULL THEN held_reason ELSE reason END, '')
        AS error_message,
    LEAST(held_since, sealed_at) AS created_at,
    processed_at,
    last_retry_at
FROM usage_parts
WHERE event IS NOT NULL OR (held_calls > 0 AND released_in IS NULL);
