-- An event that waited over the border of a billing period is posted with another moment than the stored one, and one
-- whose subscription ended meanwhile to the next: what Lago was told then, from billing.receipts; NULL: the event's own.

ALTER TABLE usage_parts ADD COLUMN posted_at timestamptz, ADD COLUMN posted_to text COLLATE "C";

CREATE OR REPLACE VIEW lago_events AS
SELECT
    part AS transaction_id, COALESCE(posted_to, external_subscription_id) AS external_subscription_id, org_id, customer_id, event, amount_cents,
    raw_partition, first_offset, last_offset, calls, windows, seal_seq, sealed_at,
    COALESCE(status, 'pending') AS status, attempts, reason, processed_at, last_retry_at,
    COALESCE(
        posted_at,
        CASE WHEN event ->> 'timestamp' ~ '^[0-9]{1,12}(\.[0-9]{1,9})?$' THEN to_timestamp((event ->> 'timestamp')::numeric) END
    ) AS billed_at
FROM usage_parts
WHERE event IS NOT NULL;

CREATE OR REPLACE VIEW event_queue AS
SELECT
    md5(part)::uuid AS id,
    part AS transaction_id,
    NULLIF(CASE WHEN event IS NULL THEN held_org_id ELSE org_id END, '') AS external_customer_id,
    event AS event_data,
    CASE WHEN event IS NULL THEN held_customer_id ELSE customer_id END AS customer_mapping_id,
    CASE WHEN status = 'written_off' THEN 'failed' ELSE COALESCE(status, 'pending') END AS status,
    attempts AS retry_count,
    NULLIF(CASE WHEN status = 'written_off' THEN status WHEN event IS NULL THEN held_reason ELSE reason END, '')
        AS error_message,
    LEAST(held_since, sealed_at) AS created_at,
    processed_at,
    last_retry_at,
    COALESCE(
        posted_at,
        CASE WHEN event ->> 'timestamp' ~ '^[0-9]{1,12}(\.[0-9]{1,9})?$' THEN to_timestamp((event ->> 'timestamp')::numeric) END
    ) AS billed_at
FROM usage_parts
WHERE event IS NOT NULL OR (held_calls > 0 AND released_in IS NULL);
