-- The resolutions of rejected calls.
UPDATE rejected_calls AS r
SET resolution = given.resolution, audit_id = given.audit_id, resolved_at = to_timestamp(given.resolved_ms / 1000.0)
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[]) AS given ("offset", resolution, audit_id, resolved_ms)
WHERE r.partition = $1 AND r."offset" = given."offset"
