-- From which moment the usage log is complete, by raw partition: a call that was counted before it may be missing here,
-- so its absence proves nothing. '-infinity': nothing was ever missed. 'infinity': the projector began in the midst of
-- the topic, and has not seen a record yet that tells the time.
CREATE TABLE log_completeness (
    partition integer PRIMARY KEY,
    topic_id text NOT NULL,
    since timestamptz NOT NULL
);

-- What an older release projected began at an unknown place: complete from the first call that is there.
INSERT INTO log_completeness (partition, topic_id, since)
SELECT o.partition, o.topic_id, COALESCE(u.since, now())
FROM projector_offsets o
LEFT JOIN (SELECT raw_partition, min(recorded_at) AS since FROM llm_usage_log GROUP BY raw_partition) u
    ON u.raw_partition = o.partition
WHERE o.topic LIKE '%litellm.usage.enriched';

-- A call by its request id, without the endings that LiteLLM's database adds (streams/core/alias.py): clients and
-- providers choose ids of any length, so the index has their hash.
CREATE INDEX llm_usage_log_request ON llm_usage_log (
    (md5(regexp_replace(regexp_replace(request_id, '_cache_hit[0-9.]*$', ''), '(_batch_cost|_background_cost|_video_cost)$', ''))),
    started_at
);

-- SHA-256 of the refused call as it is kept: a copy of one that was put away for good, as a replay makes, stays away too.
ALTER TABLE rejected_calls ADD COLUMN call_digest bytea;
CREATE INDEX rejected_calls_purged ON rejected_calls (call_digest) WHERE resolution = 'purged';

-- Calls that came too late and wait for the log to tell whether they were counted.
CREATE INDEX rejected_calls_late ON rejected_calls (partition, "offset")
    WHERE reason = 'beyond_horizon' AND resolution IS NULL;

-- Pairs of billed calls that look like one: `bridge`: LiteLLM logged one request under two ids; `job`: one batch or
-- background response is billed to two customers. Both are billed; `meterbridge reconcile` names them.
CREATE TABLE doubled_calls (
    identity bytea NOT NULL,
    other bytea NOT NULL,
    kind text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    other_request_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    other_customer_id text COLLATE "C" NOT NULL,
    cost_usd numeric NOT NULL,
    PRIMARY KEY (identity, other)
);

CREATE INDEX doubled_calls_found ON doubled_calls (found_at);
