-- Calls, and their held parts. A call that has a row already changes nothing, unless it was not billed before and is billed
-- now, as itself or with the success after it (`carried`). One without a decision is that of recounted.sql; one that a rebuilt
-- ledger has rejected came again since. The result is the number of written rows.
WITH new AS (
    INSERT INTO llm_usage_log AS log (
        identity, month, started_at, ended_at, recorded_at, alias, decision, status, customer_id, id_kind, org_id,
        external_subscription_id, model, provider, call_type, tokens_input, tokens_output, total_tokens, cached_tokens,
        reasoning_tokens, cost_usd, call_id, request_id, user_id, team_id, organization_id, key_hash, key_alias, part,
        held, note, billed_usd, rate, power_level, cache_write_tokens, images, seconds, price_usd,
        latency_ms, byok, time_to_first_token, session_id, app, tags, error_category, cache_hit, raw_partition, raw_offset
    )
    SELECT
        identity, month::date, began, ended, to_timestamp(recorded_ms / 1000.0),
        alias, decision, status, customer_id, id_kind, org_id, external_subscription_id, model, provider, call_type,
        tokens_input, tokens_output, total_tokens, cached_tokens, reasoning_tokens, cost_usd::numeric, call_id,
        request_id, user_id, team_id, organization_id, key_hash, key_alias, part, held, note,
        billed_usd::numeric, rate, power_level, cache_write_tokens, images, seconds::numeric, price_usd::numeric,
        CASE
            WHEN ended > began
            THEN round(1000 * extract(epoch FROM ended - began))::bigint
        END,
        byok, time_to_first_token::numeric, session_id, app,
        CASE WHEN tags IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(tags::jsonb)) END,
        error_category, cache_hit, $46, raw_offset
    FROM (
        -- OFFSET keeps the casts here: in the list above each would be made again wherever it is used.
        SELECT *, started_at::timestamptz AS began, ended_at::timestamptz AS ended
        FROM unnest(
        $1::bytea[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::bigint[], $17::bigint[],
        $18::bigint[], $19::bigint[], $20::bigint[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[],
        $26::text[], $27::text[], $28::text[], $29::text[], $30::text[], $31::text[], $32::text[],
        $33::text[], $34::text[], $35::bigint[], $36::bigint[], $37::text[], $38::text[],
        $39::boolean[], $40::text[], $41::text[], $42::text[], $43::text[], $44::text[], $45::boolean[],
        $47::bigint[]
    ) AS call (
        identity, month, started_at, ended_at, recorded_ms, alias, decision, status, customer_id, id_kind, org_id,
        external_subscription_id, model, provider, call_type, tokens_input, tokens_output, total_tokens, cached_tokens,
        reasoning_tokens, cost_usd, call_id, request_id, user_id, team_id, organization_id, key_hash, key_alias, part,
        held, note, billed_usd, rate, power_level, cache_write_tokens, images, seconds, price_usd,
        byok, time_to_first_token, session_id, app, tags, error_category, cache_hit, raw_offset
        )
        OFFSET 0
    ) AS c
    ON CONFLICT (identity, month) DO UPDATE SET
        started_at = EXCLUDED.started_at, ended_at = EXCLUDED.ended_at, recorded_at = EXCLUDED.recorded_at,
        alias = EXCLUDED.alias, decision = EXCLUDED.decision, status = EXCLUDED.status,
        customer_id = EXCLUDED.customer_id, id_kind = EXCLUDED.id_kind, org_id = EXCLUDED.org_id,
        external_subscription_id = EXCLUDED.external_subscription_id, model = EXCLUDED.model, provider = EXCLUDED.provider,
        call_type = EXCLUDED.call_type, tokens_input = EXCLUDED.tokens_input, tokens_output = EXCLUDED.tokens_output,
        total_tokens = EXCLUDED.total_tokens, cached_tokens = EXCLUDED.cached_tokens, reasoning_tokens = EXCLUDED.reasoning_tokens,
        cost_usd = EXCLUDED.cost_usd, call_id = EXCLUDED.call_id, request_id = EXCLUDED.request_id,
        user_id = EXCLUDED.user_id, team_id = EXCLUDED.team_id, organization_id = EXCLUDED.organization_id,
        key_hash = EXCLUDED.key_hash, key_alias = EXCLUDED.key_alias, part = EXCLUDED.part,
        held = EXCLUDED.held, note = EXCLUDED.note, billed_usd = EXCLUDED.billed_usd, rate = EXCLUDED.rate,
        power_level = EXCLUDED.power_level, cache_write_tokens = EXCLUDED.cache_write_tokens,
        images = EXCLUDED.images, seconds = EXCLUDED.seconds, price_usd = EXCLUDED.price_usd,
        latency_ms = EXCLUDED.latency_ms, byok = EXCLUDED.byok, time_to_first_token = EXCLUDED.time_to_first_token,
        session_id = EXCLUDED.session_id, app = EXCLUDED.app, tags = EXCLUDED.tags,
        error_category = EXCLUDED.error_category, cache_hit = EXCLUDED.cache_hit, raw_partition = EXCLUDED.raw_partition,
        raw_offset = EXCLUDED.raw_offset
    WHERE (EXCLUDED.decision IN ('billable', 'failed_with_cost')
        AND log.decision NOT IN ('billable', 'failed_with_cost', 'metered'))
        OR (EXCLUDED.decision = 'carried' AND log.decision NOT IN ('billable', 'failed_with_cost', 'carried', 'metered'))
        OR (EXCLUDED.decision = 'metered' AND log.decision = 'lost')
        OR log.decision IN ('', 'rejected')
    RETURNING part, customer_id, id_kind, org_id, held, cost_usd, recorded_at, raw_offset
), held AS (
    INSERT INTO usage_parts AS p (
        part, held_customer_id, held_id_kind, held_org_id, held_reason, held_calls, held_cost_usd, held_since
    )
    SELECT
        part, min(customer_id), min(id_kind), min(org_id), (array_agg(held ORDER BY raw_offset))[1], count(*),
        sum(cost_usd), min(recorded_at)
    FROM new
    WHERE held <> ''
    GROUP BY part
    ORDER BY part
    ON CONFLICT (part) DO UPDATE SET
        held_customer_id = COALESCE(p.held_customer_id, EXCLUDED.held_customer_id),
        held_id_kind = COALESCE(p.held_id_kind, EXCLUDED.held_id_kind),
        held_org_id = COALESCE(p.held_org_id, EXCLUDED.held_org_id),
        held_reason = COALESCE(p.held_reason, EXCLUDED.held_reason),
        held_calls = p.held_calls + EXCLUDED.held_calls,
        held_cost_usd = p.held_cost_usd + EXCLUDED.held_cost_usd,
        held_since = LEAST(p.held_since, EXCLUDED.held_since)
)
SELECT count(*) FROM new
