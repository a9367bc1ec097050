-- The latest mappings of customers. A record that is older than the row changes nothing.
INSERT INTO customer_records AS c (litellm_customer_id, versions, created_at, updated_at, "offset")
SELECT
    litellm_customer_id, versions::jsonb, to_timestamp(created_us / 1000000.0), to_timestamp(updated_us / 1000000.0),
    "offset"
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[])
    AS given (litellm_customer_id, "offset", versions, created_us, updated_us)
ON CONFLICT (litellm_customer_id) DO UPDATE SET
    versions = EXCLUDED.versions,
    created_at = EXCLUDED.created_at,
    updated_at = EXCLUDED.updated_at,
    "offset" = EXCLUDED."offset"
WHERE EXCLUDED."offset" >= c."offset"
