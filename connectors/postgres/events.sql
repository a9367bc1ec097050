-- Lago events, and the held parts that were released into them: one row each, in a fixed order, so that two writers cannot
-- deadlock. The first record of a part is kept.
INSERT INTO usage_parts AS p (
    part, released_in, event, external_subscription_id, org_id, customer_id, amount_cents, raw_partition, first_offset,
    last_offset, calls, windows, seal_seq, sealed_at
)
SELECT
    part, released_in, event::jsonb, external_subscription_id, org_id, customer_id, amount_cents::numeric,
    raw_partition, first_offset, last_offset, calls, windows::bigint[], seal_seq, to_timestamp(sealed_ms / 1000.0)
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $9::bigint[],
    $10::bigint[], $11::bigint[], $12::text[], $13::bigint[], $14::bigint[]
) AS given (
    part, released_in, event, external_subscription_id, org_id, customer_id, amount_cents, raw_partition, first_offset,
    last_offset, calls, windows, seal_seq, sealed_ms
)
ORDER BY part COLLATE "C"
ON CONFLICT (part) DO UPDATE SET
    released_in = COALESCE(p.released_in, EXCLUDED.released_in),
    event = COALESCE(p.event, EXCLUDED.event),
    external_subscription_id = COALESCE(p.external_subscription_id, EXCLUDED.external_subscription_id),
    org_id = COALESCE(p.org_id, EXCLUDED.org_id),
    customer_id = COALESCE(p.customer_id, EXCLUDED.customer_id),
    amount_cents = COALESCE(p.amount_cents, EXCLUDED.amount_cents),
    raw_partition = COALESCE(p.raw_partition, EXCLUDED.raw_partition),
    first_offset = COALESCE(p.first_offset, EXCLUDED.first_offset),
    last_offset = COALESCE(p.last_offset, EXCLUDED.last_offset),
    calls = COALESCE(p.calls, EXCLUDED.calls),
    windows = COALESCE(p.windows, EXCLUDED.windows),
    seal_seq = COALESCE(p.seal_seq, EXCLUDED.seal_seq),
    sealed_at = COALESCE(p.sealed_at, EXCLUDED.sealed_at)
