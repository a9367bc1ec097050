-- What outgoing webhooks have announced, and what still has to be sent (docs/webhooks.md). A message is written in the
-- transaction that stores the state that it announces.
CREATE TABLE announced_states (
    kind text COLLATE "C" NOT NULL CHECK (octet_length(kind) <= 64),
    subject text COLLATE "C" NOT NULL CHECK (octet_length(subject) <= 1024),
    state text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, subject)
);

-- endpoint: a hash of the URL, which may contain a secret. body: what is sent, byte for byte in each attempt.
CREATE TABLE outgoing_webhooks (
    endpoint text COLLATE "C" NOT NULL CHECK (octet_length(endpoint) <= 64),
    message_id text COLLATE "C" NOT NULL CHECK (octet_length(message_id) <= 64),
    event_type text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    last_status integer,
    ended_at timestamptz,
    outcome text CHECK (outcome IN ('sent', 'given_up')),
    PRIMARY KEY (endpoint, message_id)
);
CREATE INDEX outgoing_webhooks_due ON outgoing_webhooks (endpoint, due_at) WHERE ended_at IS NULL;
CREATE INDEX outgoing_webhooks_ended ON outgoing_webhooks (ended_at) WHERE ended_at IS NOT NULL;

-- failing_since: no attempt has succeeded since then. Nothing is sent to a disabled endpoint.
CREATE TABLE webhook_endpoints (
    endpoint text COLLATE "C" PRIMARY KEY CHECK (octet_length(endpoint) <= 64),
    failing_since timestamptz,
    disabled_at timestamptz,
    reason text NOT NULL DEFAULT ''
);
