-- The resolutions of rejected calls.
UPDATE rejected_calls AS r
SET resolution = told.resolution, audit_id = told.audit_id, resolved_at = to_timestamp(told.resolved_ms / 1000.0)
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[]) AS told ("offset", resolution, audit_id, resolved_ms)
WHERE r.partition = $1 AND r."offset" = told."offset"
