-- Keys of LLM providers that users own. No projection: this table is the truth, and is to be backed up together with
-- PROVIDER_KEYS_SECRET, which is not in it. encrypted_key: a Fernet token (docs/provider-keys.md); a revoked key is erased.
-- secret_id: which secret encrypted it, as a name that does not tell the secret.

CREATE TABLE user_provider_keys (
    key_id text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL CHECK (octet_length(user_id) BETWEEN 1 AND 1024),
    provider text COLLATE "C" NOT NULL CHECK (provider ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'),
    key_name text NOT NULL CHECK (octet_length(key_name) BETWEEN 1 AND 1024),
    encrypted_key bytea,
    secret_id text COLLATE "C" NOT NULL,
    masked_key text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    use_count bigint NOT NULL DEFAULT 0 CHECK (use_count >= 0),
    rotation_due timestamptz NOT NULL,
    revoked_at timestamptz,
    UNIQUE (user_id, provider, key_name),
    CONSTRAINT user_provider_keys_erased CHECK (
        is_active = (revoked_at IS NULL) AND is_active = (encrypted_key IS NOT NULL)
    )
);

-- The key of a call: the user's newest active one for the provider.
CREATE INDEX user_provider_keys_live ON user_provider_keys (user_id, provider, created_at DESC) WHERE is_active;
-- Which keys are to be replaced.
CREATE INDEX user_provider_keys_due ON user_provider_keys (rotation_due) WHERE is_active;
-- Which secrets are still needed.
CREATE INDEX user_provider_keys_secret ON user_provider_keys (secret_id, key_id) WHERE is_active;

CREATE FUNCTION provider_key_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

-- Not for use_count: a use is no change.
CREATE TRIGGER user_provider_keys_updated_at
    BEFORE UPDATE OF key_name, encrypted_key, secret_id, rotation_due, is_active, revoked_at ON user_provider_keys
    FOR EACH ROW EXECUTE FUNCTION provider_key_changed();
