-- Rejected calls. A record that is read again changes nothing, but its row gets the digest that an earlier release did not store.
INSERT INTO rejected_calls AS r (
    partition, "offset", rejected_at, stage, reason, detail, customer_id, cost_usd, raw_offset, call_digest, call_ids
)
SELECT $1, "offset", to_timestamp(rejected_us / 1000000.0), stage, reason, detail, customer_id, cost_usd::numeric, raw_offset,
    call_digest, ARRAY(SELECT jsonb_array_elements_text(call_ids::jsonb))
FROM unnest(
    $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bytea[], $11::text[]
) AS given ("offset", rejected_us, stage, reason, detail, customer_id, cost_usd, raw_offset, call_digest, call_ids)
ON CONFLICT (partition, "offset") DO UPDATE SET call_digest = EXCLUDED.call_digest
WHERE r.call_digest IS NULL AND EXCLUDED.call_digest IS NOT NULL
