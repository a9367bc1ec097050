-- Held usage is no event yet: `pending` counts what GET /metrics and pending_events_total count, events on their way.

CREATE OR REPLACE VIEW event_queue AS
SELECT
    md5(part)::uuid AS id,
    part AS transaction_id,
    NULLIF(CASE WHEN event IS NULL THEN held_org_id ELSE org_id END, '') AS external_customer_id,
    event AS event_data,
    CASE WHEN event IS NULL THEN held_customer_id ELSE customer_id END AS customer_mapping_id,
    CASE
        WHEN status = 'written_off' THEN 'failed'
        WHEN status IS NULL AND event IS NULL THEN 'held'
        ELSE COALESCE(status, 'pending')
    END AS status,
    attempts AS retry_count,
    NULLIF(CASE WHEN status = 'written_off' THEN status WHEN event IS NULL THEN held_reason ELSE reason END, '')
        AS error_message,
    LEAST(held_since, sealed_at) AS created_at,
    processed_at,
    last_retry_at
FROM usage_parts
WHERE event IS NOT NULL OR (held_calls > 0 AND released_in IS NULL);

DROP INDEX usage_parts_status;
CREATE INDEX usage_parts_status ON usage_parts (
    (
        CASE
            WHEN status = 'written_off' THEN 'failed'
            WHEN status IS NULL AND event IS NULL THEN 'held'
            ELSE COALESCE(status, 'pending')
        END
    ),
    (LEAST(held_since, sealed_at))
);
