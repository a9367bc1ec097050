-- Who is mapped to whom, the orgs, who changed what, and every attempt to deliver: what their topics say. And the views
-- and the function over calls that operators ask by customer. Columns and examples: docs/database.md.

-- Rows of compacted topics remember the offset that they were written from: an older record changes nothing.
CREATE TABLE customer_records (
    litellm_customer_id text COLLATE "C" PRIMARY KEY,
    versions jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    "offset" bigint NOT NULL
);

-- The version in force now, so a version takes effect here by itself. The first one also covers everything before it.
-- Who is not mapped any more has no row.
CREATE VIEW customer_mappings AS
SELECT
    c.litellm_customer_id,
    v.lago_customer_id,
    v.lago_organization_id,
    v.billing_plan,
    v.is_active,
    c.created_at,
    v.updated_at,
    NULLIF(v.external_subscription_id, '') AS external_subscription_id,
    NULLIF(v.id_kind, '') AS id_kind,
    v.effective_from,
    (SELECT min(later.effective_from) FROM jsonb_to_recordset(c.versions) AS later (effective_from timestamptz)
     WHERE later.effective_from > GREATEST(v.effective_from, now())) AS next_effective_from
FROM customer_records c
CROSS JOIN LATERAL (
    SELECT * FROM jsonb_to_recordset(c.versions) AS version (
        lago_customer_id text, lago_organization_id text, billing_plan text, is_active boolean,
        external_subscription_id text, id_kind text, effective_from timestamptz, updated_at timestamptz,
        deleted boolean
    )
    ORDER BY
        version.effective_from > now(),
        CASE WHEN version.effective_from > now() THEN version.effective_from END,
        version.effective_from DESC
    LIMIT 1
) v
WHERE v.deleted IS NOT TRUE;

CREATE TABLE organisations (
    org_id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    plan text NOT NULL,
    currency text NOT NULL,
    status text NOT NULL,
    subscription_id text COLLATE "C" NOT NULL,
    limits jsonb NOT NULL,
    periods jsonb NOT NULL,
    updated_at timestamptz NOT NULL,
    "offset" bigint NOT NULL
);

CREATE TABLE audit_log (
    audit_id text COLLATE "C" PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    target jsonb NOT NULL,
    reason text NOT NULL,
    count bigint NOT NULL,
    cost_usd numeric NOT NULL,
    before jsonb,
    after jsonb,
    request_id text,
    address text
);

CREATE INDEX audit_log_at ON audit_log (at);
CREATE INDEX audit_log_action ON audit_log (action, at);

CREATE TABLE webhook_delivery_logs (
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    created_at timestamptz NOT NULL,
    direction text NOT NULL,
    event_type text NOT NULL,
    http_status integer,
    error text,
    duration_ms bigint NOT NULL,
    attempt integer NOT NULL,
    events bigint NOT NULL,
    first_transaction_id text COLLATE "C",
    last_transaction_id text COLLATE "C",
    source text,
    unique_key text COLLATE "C",
    PRIMARY KEY (partition, "offset")
);

CREATE INDEX webhook_delivery_logs_created ON webhook_delivery_logs (created_at);
CREATE INDEX webhook_delivery_logs_key ON webhook_delivery_logs (unique_key) WHERE unique_key IS NOT NULL;

-- Months whose calls were given up by `meterbridge db prune`: whether one of them was counted is not known any more.
CREATE TABLE forgotten_months (
    month date PRIMARY KEY CHECK (month = date_trunc('month', month)),
    forgotten_at timestamptz NOT NULL DEFAULT now()
);

-- By the customer of LiteLLM and the call's end. processed_at is NULL while something is still to be done about a call:
-- it waits for a mapping, for its window's end or for Lago, or its event is a dead letter.
CREATE VIEW litellm_usage_events AS
SELECT
    encode(u.identity, 'hex')::uuid AS id,
    u.customer_id AS customer_external_id,
    u.ended_at AS "timestamp",
    CASE
        WHEN u.part = '' THEN u.recorded_at
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
    COALESCE(NULLIF(u.org_id, ''), e.org_id) AS org_id,
    COALESCE(NULLIF(u.external_subscription_id, ''), e.external_subscription_id) AS external_subscription_id,
    CASE WHEN e.event IS NOT NULL THEN e.part END AS transaction_id,
    u.decision,
    u.month
FROM llm_usage_log u
LEFT JOIN usage_parts p ON p.part = u.part
LEFT JOIN usage_parts e ON e.part = COALESCE(p.released_in, p.part);

-- What a customer of LiteLLM's used in [since, until), by the calls' ends: billed calls alone.
CREATE FUNCTION aggregate_customer_usage(customer text, since timestamptz, until timestamptz)
RETURNS TABLE (
    model text, provider text, calls bigint, tokens_input numeric, tokens_output numeric, total_tokens numeric,
    cost_usd numeric, first_call timestamptz, last_call timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT
        u.model, u.provider, count(*), sum(u.tokens_input), sum(u.tokens_output), sum(u.total_tokens),
        sum(u.cost_usd), min(u.ended_at), max(u.ended_at)
    FROM llm_usage_log u
    WHERE u.customer_id = customer AND u.ended_at >= since AND u.ended_at < until AND u.part <> ''
    GROUP BY u.model, u.provider
    ORDER BY 7 DESC, u.model COLLATE "C", u.provider COLLATE "C"
$$;
