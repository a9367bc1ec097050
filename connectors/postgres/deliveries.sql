INSERT INTO webhook_delivery_logs (
    partition, "offset", created_at, direction, event_type, http_status, error, duration_ms, attempt, events,
    first_transaction_id, last_transaction_id, source, unique_key
)
SELECT
    $1, "offset", to_timestamp(at_us / 1000000.0), direction, event_type, NULLIF(http_status, 0), NULLIF(error, ''),
    duration_ms, attempt, events, NULLIF(first_id, ''), NULLIF(last_id, ''), NULLIF(source, ''), NULLIF(unique_key, '')
FROM unnest(
    $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::int[], $7::text[], $8::bigint[], $9::int[], $10::bigint[],
    $11::text[], $12::text[], $13::text[], $14::text[]
) AS given (
    "offset", at_us, direction, event_type, http_status, error, duration_ms, attempt, events, first_id, last_id, source,
    unique_key
)
ON CONFLICT DO NOTHING
