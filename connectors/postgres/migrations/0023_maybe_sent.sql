-- Of a dead letter: whether Lago may have stored an earlier post of it. From billing.receipts; NULL: not known, as in all rows
-- of before. The fact is of the failure at maybe_sent_at: a projector of an earlier release may write a later failure, and
-- leaves these two columns as they are.
ALTER TABLE usage_parts ADD COLUMN maybe_sent boolean, ADD COLUMN maybe_sent_at timestamptz;

CREATE FUNCTION known_maybe_sent(status text, processed_at timestamptz, maybe_sent boolean, maybe_sent_at timestamptz)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN status = 'failed' AND maybe_sent_at = processed_at THEN maybe_sent END $$;

CREATE OR REPLACE VIEW lago_events AS
SELECT
    part AS transaction_id, COALESCE(posted_to, external_subscription_id) AS external_subscription_id, org_id, customer_id, event, amount_cents,
    raw_partition, first_offset, last_offset, calls, windows, seal_seq, sealed_at,
    COALESCE(status, 'pending') AS status, attempts, reason, processed_at, last_retry_at,
    COALESCE(
        posted_at,
        CASE WHEN event ->> 'timestamp' ~ '^[0-9]{1,12}(\.[0-9]{1,9})?$' THEN to_timestamp((event ->> 'timestamp')::numeric) END
    ) AS billed_at,
    known_maybe_sent(status, processed_at, maybe_sent, maybe_sent_at) AS maybe_sent
FROM usage_parts
WHERE event IS NOT NULL;
