INSERT INTO audit_log (
    audit_id, at, actor, action, target, reason, count, cost_usd, before, after, request_id, address
)
SELECT
    audit_id, to_timestamp(at_us / 1000000.0), actor, action, target::jsonb, reason, count, cost_usd::numeric,
    before::jsonb, after::jsonb, NULLIF(request_id, ''), NULLIF(address, '')
FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[],
    $10::text[], $11::text[], $12::text[]
) AS given (audit_id, at_us, actor, action, target, reason, count, cost_usd, before, after, request_id, address)
ON CONFLICT DO NOTHING
