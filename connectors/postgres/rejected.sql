INSERT INTO rejected_calls (
    partition, "offset", rejected_at, stage, reason, detail, customer_id, cost_usd, raw_offset, call_digest, call_ids
)
SELECT $1, "offset", to_timestamp(rejected_us / 1000000.0), stage, reason, detail, customer_id, cost_usd::numeric, raw_offset,
    call_digest, ARRAY(SELECT jsonb_array_elements_text(call_ids::jsonb))
FROM unnest(
    $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bytea[], $11::text[]
) AS given ("offset", rejected_us, stage, reason, detail, customer_id, cost_usd, raw_offset, call_digest, call_ids)
ON CONFLICT DO NOTHING
