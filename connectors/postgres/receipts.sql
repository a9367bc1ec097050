-- The latest state of events, one row per event. `completed` and `written_off` are final, except for events that Lago accepted
-- and later says it will not bill. `pending` is only the first state.
INSERT INTO usage_parts AS p (
    part, status, attempts, reason, processed_at, last_retry_at, posted_at, posted_to, maybe_sent, maybe_sent_at
)
SELECT
    part, status, attempts, reason, to_timestamp(processed_us / 1000000.0), to_timestamp(retried_us / 1000000.0),
    to_timestamp(NULLIF(posted_at, '')::numeric), NULLIF(posted_to, ''), maybe_sent,
    CASE WHEN maybe_sent IS NOT NULL THEN to_timestamp(processed_us / 1000000.0) END
FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::boolean[])
    AS given (part, status, attempts, reason, processed_us, retried_us, posted_at, posted_to, maybe_sent)
ORDER BY part COLLATE "C"
ON CONFLICT (part) DO UPDATE SET
    status = EXCLUDED.status,
    attempts = EXCLUDED.attempts,
    reason = EXCLUDED.reason,
    processed_at = EXCLUDED.processed_at,
    last_retry_at = COALESCE(EXCLUDED.last_retry_at, p.last_retry_at),
    posted_at = CASE WHEN EXCLUDED.status = 'completed' THEN EXCLUDED.posted_at ELSE p.posted_at END,
    posted_to = CASE WHEN EXCLUDED.status = 'completed' THEN EXCLUDED.posted_to ELSE p.posted_to END,
    maybe_sent = EXCLUDED.maybe_sent,
    maybe_sent_at = EXCLUDED.maybe_sent_at
WHERE p.status IS NULL
    OR (p.status NOT IN ('completed', 'written_off') AND EXCLUDED.status <> 'pending')
    OR (p.status = 'completed' AND EXCLUDED.status = 'failed' AND starts_with(EXCLUDED.reason, 'unbillable_'))
