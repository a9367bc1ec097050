-- What analytics asks of calls: further columns of the log, sums by day that follow the log, and the state of providers.
-- Columns, units and examples: docs/analytics.md and docs/database.md. Why sums by day behind a view: ADR 0034.

-- NULL in rows of before this release, and where the call does not tell. time_to_first_token: seconds.
ALTER TABLE llm_usage_log
    ADD COLUMN latency_ms bigint,
    ADD COLUMN time_to_first_token numeric,
    ADD COLUMN error_category text,
    ADD COLUMN byok boolean,
    ADD COLUMN session_id text COLLATE "C",
    ADD COLUMN app text,
    ADD COLUMN tags text[];

-- The calls of a day or a month. Calls are counted in about the order of their ends, so an index of page ranges is enough.
CREATE INDEX llm_usage_log_ended ON llm_usage_log USING brin (ended_at) WITH (pages_per_range = 32, autosummarize = on);

-- A name that a sender chose, short enough for an index: above 255 bytes `sha256:<hex>`. schemas/bounded_name.py has the same rule.
CREATE FUNCTION bounded_name(name text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN octet_length(name) <= 255 THEN name ELSE 'sha256:' || encode(sha256(convert_to(name, 'UTF8')), 'hex')
    END
$$;

-- One row a call, with who pays and what it is billed at, also where the event, or the write-off, decided that after the call was
-- counted: as in `call_terms` (0017_call_debits.sql).
-- own_key_cost_usd: what the user's own key paid the provider; provider_cost_usd: what was paid otherwise.
CREATE VIEW usage_calls AS
SELECT
    (u.ended_at AT TIME ZONE 'UTC')::date AS day, u.month, u.ended_at, u.customer_id, u.user_id,
    CASE WHEN e.event IS NULL THEN u.org_id ELSE COALESCE(e.org_id, u.org_id) END AS org_id,
    u.provider, u.model, u.team_id, u.key_hash, u.key_alias, u.tags, u.power_level, u.rate, u.decision,
    u.status,
    u.tokens_input, u.tokens_output, u.total_tokens, u.cached_tokens, u.reasoning_tokens,
    CASE WHEN u.byok OR u.decision = 'byok' THEN 0 ELSE u.cost_usd END AS provider_cost_usd,
    CASE WHEN u.byok OR u.decision = 'byok' THEN u.cost_usd ELSE 0 END AS own_key_cost_usd,
    CASE
        WHEN e.event IS NULL AND p.status = 'written_off' THEN 0
        WHEN u.billed_usd IS NOT NULL THEN u.billed_usd
        WHEN u.decision IN ('billable', 'failed_with_cost') THEN u.cost_usd
        ELSE 0
    END AS billed_usd,
    COALESCE(u.byok OR u.decision = 'byok', false) AS own_key,
    CASE
        WHEN u.ended_at > u.started_at
        THEN LEAST(GREATEST(1, round(extract(epoch FROM u.ended_at - u.started_at) * 1000)), 86400000)::bigint
    END AS latency_ms
FROM llm_usage_log u
LEFT JOIN usage_parts p ON u.part <> '' AND p.part = u.part
LEFT JOIN usage_parts e ON e.part = CASE WHEN p.event IS NULL THEN p.released_in ELSE p.part END
WHERE u.decision <> 'metered';

-- Days whose calls have changed since the last refresh. Only added to, so writers of the log never wait for each other.
CREATE TABLE usage_days_changed (day date NOT NULL);

CREATE FUNCTION mark_usage_days() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days_changed SELECT DISTINCT (ended_at AT TIME ZONE 'UTC')::date FROM written;
    RETURN NULL;
END
$$;

CREATE TRIGGER llm_usage_log_days AFTER INSERT ON llm_usage_log
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION mark_usage_days();
CREATE TRIGGER llm_usage_log_days_now AFTER UPDATE ON llm_usage_log
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION mark_usage_days();
CREATE TRIGGER llm_usage_log_days_before AFTER UPDATE ON llm_usage_log
    REFERENCING OLD TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION mark_usage_days();

-- An event may bill calls to another org than they were counted for, and a write-off bills them at nothing. All calls of a part had
-- one org, so one of them shows whether its event moves them.
CREATE FUNCTION mark_decided_days() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.held_calls > 0 OR NEW.event IS NULL OR NEW.org_id IS DISTINCT FROM (
        SELECT u.org_id FROM llm_usage_log u WHERE u.part = NEW.part AND u.part <> '' LIMIT 1
    ) THEN
        INSERT INTO usage_days_changed
        SELECT DISTINCT (ended_at AT TIME ZONE 'UTC')::date FROM llm_usage_log WHERE part = NEW.part AND part <> '';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER usage_parts_days_new AFTER INSERT ON usage_parts
    FOR EACH ROW WHEN (NEW.event IS NOT NULL OR NEW.released_in IS NOT NULL OR NEW.status = 'written_off')
    EXECUTE FUNCTION mark_decided_days();
CREATE TRIGGER usage_parts_days AFTER UPDATE OF released_in, org_id, status ON usage_parts
    FOR EACH ROW WHEN (
        OLD.released_in IS DISTINCT FROM NEW.released_in OR OLD.org_id IS DISTINCT FROM NEW.org_id
        OR (OLD.status IS DISTINCT FROM NEW.status AND NEW.status = 'written_off')
    )
    EXECUTE FUNCTION mark_decided_days();

-- The columns of sums, for the two tables below. timed_*: of the calls whose latency is known; answered_*: of those, the successful
-- ones.
CREATE TABLE usage_sums (
    calls bigint NOT NULL,
    successes bigint NOT NULL,
    failures bigint NOT NULL,
    own_key_calls bigint NOT NULL,
    tokens_input bigint NOT NULL,
    tokens_output bigint NOT NULL,
    total_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    provider_cost_usd numeric NOT NULL,
    own_key_cost_usd numeric NOT NULL,
    billed_usd numeric NOT NULL,
    timed_calls bigint NOT NULL,
    timed_ms bigint NOT NULL,
    answered_ms bigint NOT NULL,
    answered_tokens bigint NOT NULL
);

-- Sums of a day.
CREATE TABLE usage_summary_days (
    day date NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    LIKE usage_sums,
    PRIMARY KEY (day, user_id, provider, model)
);
CREATE INDEX usage_summary_days_user ON usage_summary_days (user_id, day);

-- The same sums by one dimension: all, user, org, provider, model, team, key, tag.
CREATE TABLE usage_by_dimension (
    dimension text COLLATE "C" NOT NULL CHECK (
        dimension IN ('all', 'user', 'org', 'provider', 'model', 'team', 'key', 'tag')
    ),
    day date NOT NULL,
    value text COLLATE "C" NOT NULL,
    LIKE usage_sums,
    PRIMARY KEY (dimension, day, value) INCLUDE (billed_usd, calls)
);
CREATE INDEX usage_by_dimension_value ON usage_by_dimension (dimension, value, day);
DROP TABLE usage_sums;

-- Latencies beside the sums, because few questions read them. counts: 80 big-endian bigints; number n is how many calls took up to
-- 2 ^ (n / 4) ms and longer than number n - 1 says.
CREATE TABLE usage_latencies (
    dimension text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    day date NOT NULL,
    counts bytea NOT NULL CHECK (octet_length(counts) = 640),
    PRIMARY KEY (dimension, value, day)
);
CREATE INDEX usage_latencies_day ON usage_latencies (day);

-- When the sums were last brought up to date; one row.
CREATE TABLE usage_summary_refreshed (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    refreshed_at timestamptz NOT NULL,
    days integer NOT NULL
);

-- Days whose sums could not be made; they have those of before. problem: the SQLSTATE of the latest attempt.
CREATE TABLE usage_days_failed (
    day date PRIMARY KEY,
    failures integer NOT NULL CHECK (failures > 0),
    problem text NOT NULL,
    failed_at timestamptz NOT NULL,
    retry_at timestamptz NOT NULL
);

-- A sum as a bigint, of nothing 0: absurd counts of a client must not stop the sums of everybody else.
CREATE FUNCTION whole(total numeric) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT GREATEST(LEAST(COALESCE(total, 0), 9000000000000000000), -9000000000000000000)::bigint $$;

-- The values by which a call is summed up in `usage_by_dimension`.
CREATE FUNCTION dimensions_of(
    user_id text, org_id text, provider text, model text, team_id text, key_hash text, tags text[]
) RETURNS TABLE (dimension text, value text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    VALUES ('all', ''), ('user', user_id), ('org', org_id), ('provider', provider), ('model', model), ('team', team_id),
        ('key', key_hash)
    UNION ALL SELECT DISTINCT 'tag', bounded_name(tag) FROM unnest(tags) AS of_call (tag)
$$;

-- The counts of `usage_latencies`, out of the numbers of buckets and their counts.
CREATE FUNCTION latency_counts(buckets integer[], counted bigint[]) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    counts bytea := decode(repeat('00', 640), 'hex');
BEGIN
    FOR n IN 1 .. cardinality(buckets) LOOP
        counts := overlay(counts PLACING int8send(counted[n]) FROM buckets[n] * 8 + 1);
    END LOOP;
    RETURN counts;
END
$$;

-- Makes the sums of one day anew. A month that was pruned keeps its sums.
CREATE FUNCTION summarise_usage_day(wanted date) RETURNS void LANGUAGE plpgsql SET jit = off SET work_mem = '64MB' AS $$
BEGIN
    IF EXISTS (SELECT FROM forgotten_months WHERE month = date_trunc('month', wanted)::date) THEN
        RETURN;
    END IF;
    DELETE FROM usage_summary_days WHERE day = wanted;
    DELETE FROM usage_by_dimension WHERE day = wanted;
    DELETE FROM usage_latencies WHERE day = wanted;
    WITH cells AS MATERIALIZED (
        SELECT
            bounded_name(user_id) AS user_id, bounded_name(org_id) AS org_id, bounded_name(provider) AS provider,
            bounded_name(model) AS model, bounded_name(team_id) AS team_id, bounded_name(key_hash) AS key_hash, tags,
            LEAST(79, ceil(4 * ln(latency_ms::double precision) / ln(2::double precision)))::integer AS bucket,
            count(*) AS calls,
            count(*) FILTER (WHERE status = 'success') AS successes,
            count(*) FILTER (WHERE status = 'failure') AS failures,
            count(*) FILTER (WHERE own_key) AS own_key_calls,
            whole(sum(tokens_input)) AS tokens_input, whole(sum(tokens_output)) AS tokens_output,
            whole(sum(total_tokens)) AS total_tokens, whole(sum(cached_tokens)) AS cached_tokens,
            whole(sum(reasoning_tokens)) AS reasoning_tokens, sum(provider_cost_usd) AS provider_cost_usd,
            sum(own_key_cost_usd) AS own_key_cost_usd, sum(billed_usd) AS billed_usd,
            count(latency_ms) AS timed_calls, whole(sum(latency_ms)) AS timed_ms,
            whole(sum(latency_ms) FILTER (WHERE status = 'success')) AS answered_ms,
            whole(sum(tokens_output) FILTER (WHERE status = 'success' AND latency_ms IS NOT NULL)) AS answered_tokens
        FROM usage_calls
        WHERE ended_at >= wanted::timestamp AT TIME ZONE 'UTC' AND ended_at < (wanted + 1)::timestamp AT TIME ZONE 'UTC'
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ), summary AS (
        INSERT INTO usage_summary_days
        SELECT wanted, user_id, provider, model,
        whole(sum(calls)), whole(sum(successes)), whole(sum(failures)), whole(sum(own_key_calls)),
        whole(sum(tokens_input)), whole(sum(tokens_output)), whole(sum(total_tokens)), whole(sum(cached_tokens)),
        whole(sum(reasoning_tokens)), sum(provider_cost_usd), sum(own_key_cost_usd), sum(billed_usd),
        whole(sum(timed_calls)), whole(sum(timed_ms)), whole(sum(answered_ms)), whole(sum(answered_tokens))
        FROM cells GROUP BY user_id, provider, model
    ), summed AS (
        SELECT d.dimension, d.value,
            whole(sum(calls)) AS calls, whole(sum(successes)) AS successes, whole(sum(failures)) AS failures,
            whole(sum(own_key_calls)) AS own_key_calls, whole(sum(tokens_input)) AS tokens_input,
            whole(sum(tokens_output)) AS tokens_output, whole(sum(total_tokens)) AS total_tokens,
            whole(sum(cached_tokens)) AS cached_tokens, whole(sum(reasoning_tokens)) AS reasoning_tokens,
            sum(provider_cost_usd) AS provider_cost_usd, sum(own_key_cost_usd) AS own_key_cost_usd,
            sum(billed_usd) AS billed_usd, whole(sum(timed_calls)) AS timed_calls, whole(sum(timed_ms)) AS timed_ms,
            whole(sum(answered_ms)) AS answered_ms, whole(sum(answered_tokens)) AS answered_tokens
        FROM cells CROSS JOIN LATERAL dimensions_of(user_id, org_id, provider, model, team_id, key_hash, tags) AS d
        GROUP BY d.dimension, d.value
    ), by_bucket AS (
        SELECT d.dimension, d.value, bucket, sum(timed_calls)::bigint AS counted
        FROM cells CROSS JOIN LATERAL dimensions_of(user_id, org_id, provider, model, team_id, key_hash, tags) AS d
        WHERE bucket IS NOT NULL
        GROUP BY d.dimension, d.value, bucket
    ), latencies AS (
        INSERT INTO usage_latencies (dimension, value, day, counts)
        SELECT dimension, value, wanted, latency_counts(array_agg(bucket), array_agg(counted))
        FROM by_bucket GROUP BY dimension, value
    )
    INSERT INTO usage_by_dimension (
        dimension, day, value,
        calls, successes, failures, own_key_calls, tokens_input, tokens_output, total_tokens, cached_tokens,
        reasoning_tokens, provider_cost_usd, own_key_cost_usd, billed_usd, timed_calls, timed_ms, answered_ms,
        answered_tokens
    )
    SELECT dimension, wanted, value,
        calls, successes, failures, own_key_calls, tokens_input, tokens_output, total_tokens, cached_tokens,
        reasoning_tokens, provider_cost_usd, own_key_cost_usd, billed_usd, timed_calls, timed_ms, answered_ms,
        answered_tokens
    FROM summed;
END
$$;

-- Notes that the sums of a day could not be made. Each failure doubles the wait before the next attempt, up to six hours.
CREATE FUNCTION usage_day_failed(wanted date, what text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO usage_days_failed AS f (day, failures, problem, failed_at, retry_at)
    VALUES (wanted, 1, what, clock_timestamp(), clock_timestamp() + interval '1 minute')
    ON CONFLICT (day) DO UPDATE SET
        failures = f.failures + 1, problem = EXCLUDED.problem, failed_at = EXCLUDED.failed_at,
        retry_at = EXCLUDED.failed_at + LEAST(interval '6 hours', interval '1 minute' * 2 ^ LEAST(f.failures, 9))
$$;

-- Makes the sums of a day anew, if its calls have changed or that has failed before. A day that fails keeps the sums that it had,
-- and the result is the SQLSTATE; NULL: nothing failed. What is marked from now on stays for the next refresh; the calls of what
-- is taken here are visible to the statements below. One refresh runs at a time.
CREATE FUNCTION refresh_usage_day(wanted date) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('meterbridge refresh_usage_summary'));
    DELETE FROM usage_days_changed WHERE day = wanted;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM usage_days_failed WHERE day = wanted) THEN
        RETURN NULL;
    END IF;
    BEGIN
        PERFORM summarise_usage_day(wanted);
    EXCEPTION WHEN OTHERS THEN
        PERFORM usage_day_failed(wanted, SQLSTATE);
        RETURN SQLSTATE;
    END;
    DELETE FROM usage_days_failed WHERE day = wanted;
    RETURN NULL;
END
$$;

-- Notes that a refresh has ended.
CREATE FUNCTION usage_summary_was_refreshed(how_many integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO usage_summary_refreshed (refreshed_at, days) VALUES (clock_timestamp(), how_many)
    ON CONFLICT (one_row) DO UPDATE SET refreshed_at = EXCLUDED.refreshed_at, days = EXCLUDED.days
$$;

-- Brings the sums up to date with the log: of the days whose calls have changed, and of those that failed, and of no other.
CREATE FUNCTION refresh_usage_summary() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one date;
    problem text;
    how_many integer := 0;
BEGIN
    FOR one IN SELECT day FROM usage_days_changed UNION SELECT day FROM usage_days_failed ORDER BY day DESC LOOP
        problem := refresh_usage_day(one);
        how_many := how_many + 1;
        IF problem IS NOT NULL THEN
            RAISE WARNING 'the sums of % could not be made: %', one, problem;
        END IF;
    END LOOP;
    PERFORM usage_summary_was_refreshed(how_many);
END
$$;

-- What is in the log already.
INSERT INTO usage_days_changed SELECT DISTINCT (ended_at AT TIME ZONE 'UTC')::date FROM llm_usage_log;

-- By day, user, provider and model.
CREATE VIEW llm_usage_summary AS
SELECT
    day, user_id, provider, model, calls AS total_requests, successes AS successful_requests,
    failures AS failed_requests, tokens_input AS prompt_tokens, tokens_output AS completion_tokens, total_tokens,
    provider_cost_usd + own_key_cost_usd AS total_cost, billed_usd,
    round(timed_ms / NULLIF(timed_calls, 0), 3) AS avg_latency_ms,
    round(1000 * answered_tokens / NULLIF(answered_ms, 0), 3) AS avg_tokens_per_second,
    round(successes::numeric / NULLIF(successes + failures, 0), 6) AS success_rate, own_key_calls AS byok_requests
FROM usage_summary_days;

-- How well a provider answers for a model, by the last ten minutes of the log (docs/analytics.md).
CREATE TABLE provider_health (
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    status text NOT NULL CHECK (status IN ('healthy', 'degraded', 'down')),
    since timestamptz NOT NULL,
    calls bigint NOT NULL CHECK (calls >= 0),
    avg_latency_ms numeric,
    p95_latency_ms numeric,
    success_rate numeric CHECK (success_rate BETWEEN 0 AND 1),
    consecutive_failures bigint NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
    rate_limited bigint NOT NULL DEFAULT 0 CHECK (rate_limited >= 0),
    last_call_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, model)
);
