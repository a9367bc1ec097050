-- Keys of the management API. No projection: this table is the truth, and is to be backed up (docs/database.md).
-- hash: SHA-256 of the token, which is kept nowhere. orgs NULL: all of them.

CREATE TABLE api_keys (
    key_id text COLLATE "C" PRIMARY KEY,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    name text NOT NULL,
    scopes text[] NOT NULL,
    orgs text[],
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    rotated_from text COLLATE "C" REFERENCES api_keys (key_id)
);

CREATE INDEX api_keys_created ON api_keys (created_at);
