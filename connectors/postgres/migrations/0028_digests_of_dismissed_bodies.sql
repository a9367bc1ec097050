-- Bodies that were dismissed before migration 0024 have no digest, so a copy of one was open here and not in the topic. The projector
-- reads the topic of rejected calls once more from its beginning, and adds what is missing (rejected.sql).
DELETE FROM projector_offsets WHERE topic LIKE '%litellm.usage.rejected' AND EXISTS (
    SELECT FROM rejected_calls WHERE call_digest IS NULL AND resolution IN ('purged', 'known') AND "offset" >= 0
);
