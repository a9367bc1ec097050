-- One row a call, and where the projector stands. Columns, units and examples: docs/database.md.
-- Text that a call does not have is '', as in the records; identifiers compare byte by byte ("C").

CREATE TABLE projector_offsets (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    topic_id text NOT NULL,
    next bigint NOT NULL CHECK (next >= 0),
    PRIMARY KEY (topic, partition)
);

-- Partitioned by the month of the call's own start, UTC: one call has one start, however often it is delivered, so
-- its identity is unique within its month.
CREATE TABLE llm_usage_log (
    identity bytea NOT NULL CHECK (octet_length(identity) = 16),
    month date NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    alias text COLLATE "C" NOT NULL,
    decision text NOT NULL,
    status text NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    id_kind text NOT NULL,
    org_id text COLLATE "C" NOT NULL,
    external_subscription_id text COLLATE "C" NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    call_type text NOT NULL,
    tokens_input bigint NOT NULL,
    tokens_output bigint NOT NULL,
    total_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cost_usd numeric NOT NULL,
    call_id text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    team_id text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    key_hash text COLLATE "C" NOT NULL,
    key_alias text NOT NULL,
    part text COLLATE "C" NOT NULL,
    held text NOT NULL,
    note text NOT NULL,
    raw_partition integer NOT NULL,
    raw_offset bigint NOT NULL,
    PRIMARY KEY (identity, month),
    CHECK (month = date_trunc('month', started_at AT TIME ZONE 'UTC')::date)
) PARTITION BY RANGE (month);

-- LiteLLM's database and its callbacks agree on a call's alias and, to 2 ms, on its start.
CREATE INDEX llm_usage_log_alias ON llm_usage_log (alias, started_at);
CREATE INDEX llm_usage_log_customer ON llm_usage_log (customer_id, ended_at);
CREATE INDEX llm_usage_log_org ON llm_usage_log (org_id, ended_at) WHERE org_id <> '';
CREATE INDEX llm_usage_log_part ON llm_usage_log (part) WHERE part <> '';

-- No DEFAULT partition: rows in it keep the partition of their month from ever being made. Wrong clocks get the two
-- ends of time, so that they cannot make thousands of partitions.
CREATE TABLE llm_usage_log_before_2020 PARTITION OF llm_usage_log FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE llm_usage_log_from_2100 PARTITION OF llm_usage_log FOR VALUES FROM ('2100-01-01') TO (MAXVALUE);

-- Makes the partition of a month unless it is there. Attaching takes a lock that readers and writers of the other
-- months do not notice; CREATE TABLE ... PARTITION OF would stop them all.
CREATE FUNCTION ensure_usage_month(wanted date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    begins date := date_trunc('month', wanted)::date;
    ends date := (begins + interval '1 month')::date;
    name text := 'llm_usage_log_' || to_char(begins, 'YYYY_MM');
    there text := format(
        'SELECT FROM pg_inherits WHERE inhparent = %L::regclass AND inhrelid = to_regclass(%L)', 'llm_usage_log', name
    );
    found_rows bigint;
BEGIN
    IF begins < DATE '2020-01-01' OR begins >= DATE '2100-01-01' THEN
        RETURN;
    END IF;
    EXECUTE there;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF found_rows > 0 THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('meterbridge ensure_usage_month'));
    EXECUTE there;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF found_rows > 0 THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE llm_usage_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE llm_usage_log ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, begins, ends);
END
$$;
