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
