-- The ids of the call: `explain --request` reads from Kafka only the records with the id that it looks for. NULL: not known, as in
-- all rows of before.
ALTER TABLE rejected_calls ADD COLUMN call_ids text[];

-- The rejected calls that wait for a decision. A later copy of a call that was dismissed or counted, as a replay makes it, does
-- not (connectors/operations/dismissed.py has the same rule for the topic). Rows of a lost topic have offsets below 0: they are
-- closed, and they say nothing about calls in the topic that followed it, which has no marks of them.
CREATE VIEW open_rejected_calls AS
SELECT
    r.partition, r."offset", r.rejected_at, r.stage, r.reason, r.detail, r.customer_id, r.cost_usd, r.raw_offset,
    r.call_ids
FROM rejected_calls r
WHERE r.resolution IS NULL AND r."offset" >= 0 AND NOT EXISTS (
    SELECT FROM rejected_calls gone
    WHERE gone.partition = r.partition AND gone.call_digest = r.call_digest
        AND gone."offset" >= 0 AND gone."offset" < r."offset" AND gone.resolution IN ('purged', 'known')
);

-- Most rejected calls are closed.
CREATE INDEX rejected_calls_open ON rejected_calls (partition, "offset") WHERE resolution IS NULL;
CREATE INDEX rejected_calls_dismissed ON rejected_calls (call_digest, partition, "offset") WHERE resolution IN ('purged', 'known');
DROP INDEX rejected_calls_purged;
