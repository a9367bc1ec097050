-- What can never be billed as it is, and what an operator did about it; the call stays in litellm.usage.rejected.

CREATE TABLE rejected_calls (
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    rejected_at timestamptz NOT NULL,
    stage text NOT NULL,
    reason text COLLATE "C" NOT NULL,
    detail text NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    cost_usd numeric,
    raw_offset bigint,
    resolution text,
    resolved_at timestamptz,
    audit_id text,
    PRIMARY KEY (partition, "offset")
);

CREATE INDEX rejected_calls_reason ON rejected_calls (reason, rejected_at);
