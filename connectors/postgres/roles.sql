-- The database roles and their rights. `meterbridge db roles` runs this file, and `meterbridge db migrate` does if the roles
-- exist; psql can run it too, in the schema of the tables. It may be repeated: it revokes all rights of a role first.
--
-- The account that ran `meterbridge db migrate` owns the tables, and only it changes or drops a table. Creating the roles needs
-- CREATEROLE; granting needs the owner or a superuser. The roles have no password until you set one.
--
--   meterbridge_projector  worker --only project     writes the rows of the topics
--   meterbridge_api        serve --only api, keys    reads; writes only api_keys and user_provider_keys, and credits by their functions
--   meterbridge_reader     every other command, and people: reads everything except these two

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['meterbridge_projector', 'meterbridge_api', 'meterbridge_reader'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- another database of the same server was faster
        END;
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', current_schema(), wanted);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA %I FROM %I', current_schema(), wanted);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), wanted);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), wanted);
    END LOOP;
    -- Before Postgres 15 every role may create tables there; one with the name of a month would block that month.
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
END
$$;

GRANT SELECT ON
    llm_usage_log, usage_parts, rejected_calls, customer_records, organisations, audit_log, webhook_delivery_logs,
    doubled_calls, forgotten_months, log_completeness, projector_offsets, schema_version, unprojected_records,
    lago_events, held_parts, event_queue, litellm_usage_events, customer_mappings, open_rejected_calls
TO meterbridge_projector, meterbridge_api, meterbridge_reader;
GRANT EXECUTE ON FUNCTION
    aggregate_customer_usage(text, timestamptz, timestamptz), known_maybe_sent(text, timestamptz, boolean, timestamptz)
TO meterbridge_projector, meterbridge_api, meterbridge_reader;

GRANT SELECT ON corrected_parts TO meterbridge_projector, meterbridge_api, meterbridge_reader;
GRANT INSERT, UPDATE ON corrected_parts TO meterbridge_projector;

-- The sums of analytics follow the log.
GRANT SELECT ON usage_calls, llm_usage_summary, usage_summary_days, usage_by_dimension, usage_latencies, usage_summary_refreshed,
    usage_days_failed
TO meterbridge_projector, meterbridge_api, meterbridge_reader;
GRANT SELECT ON provider_health TO meterbridge_projector, meterbridge_api, meterbridge_reader;
GRANT INSERT, UPDATE, DELETE ON provider_health TO meterbridge_projector;
GRANT INSERT, DELETE ON usage_summary_days, usage_by_dimension, usage_latencies TO meterbridge_projector;
GRANT INSERT, UPDATE ON usage_summary_refreshed TO meterbridge_projector;
GRANT INSERT, UPDATE, DELETE ON usage_days_failed TO meterbridge_projector;
GRANT SELECT, INSERT, DELETE ON usage_days_changed TO meterbridge_projector;

-- A line of the audit log, a delivery attempt and a pair of doubled calls is written once and never changed.
GRANT INSERT ON
    llm_usage_log, usage_parts, rejected_calls, customer_records, organisations, audit_log, webhook_delivery_logs,
    doubled_calls, log_completeness, projector_offsets, unprojected_records
TO meterbridge_projector;
GRANT UPDATE ON
    llm_usage_log, usage_parts, customer_records, organisations, log_completeness, projector_offsets, unprojected_records
TO meterbridge_projector;
GRANT UPDATE (resolution, audit_id, resolved_at, call_digest) ON rejected_calls TO meterbridge_projector;
GRANT DELETE ON customer_records, organisations, unprojected_records TO meterbridge_projector;
GRANT EXECUTE ON FUNCTION ensure_usage_month(date) TO meterbridge_projector;

-- Outgoing webhooks; a command of the reader enables an endpoint again.
GRANT SELECT ON announced_states, outgoing_webhooks, webhook_endpoints TO meterbridge_projector, meterbridge_api, meterbridge_reader;
GRANT INSERT, UPDATE, DELETE ON announced_states, outgoing_webhooks, webhook_endpoints TO meterbridge_projector;
GRANT DELETE ON webhook_endpoints TO meterbridge_reader;
GRANT UPDATE (due_at) ON outgoing_webhooks TO meterbridge_reader;

-- The rights and the hash of a key never change.
GRANT SELECT, INSERT ON api_keys TO meterbridge_api;
GRANT UPDATE (expires_at, last_used_at, revoked_at) ON api_keys TO meterbridge_api;

-- Whose key it is never changes. A revoked one is replaced where its name is used again.
GRANT SELECT, INSERT, DELETE ON user_provider_keys TO meterbridge_api;
GRANT UPDATE (encrypted_key, secret_id, is_active, revoked_at, last_used_at, use_count, updated_at)
ON user_provider_keys TO meterbridge_api;

-- Credits move only by functions, which act for the tables' owner: no role writes a balance or the ledger itself.
GRANT SELECT ON
    user_credits, credit_transactions, credit_grants, credit_reservations, credit_packages, power_level_configs,
    ledger_accounts, ledger_transactions, ledger_entries, credit_imbalances, undebited_calls, call_terms
TO meterbridge_projector, meterbridge_api, meterbridge_reader;
GRANT EXECUTE ON FUNCTION
    get_user_balance(text), get_account_balance(text), available_credits(user_credits, numeric)
TO meterbridge_projector, meterbridge_api, meterbridge_reader;
GRANT EXECUTE ON FUNCTION
    debit_calls(
        bytea[], text[], text[], text[], text[], text[], numeric[], timestamptz[], timestamptz[], boolean[], text[], text[],
        bigint[], bigint[], text[], boolean[]
    ),
    expire_credits(text, integer)
TO meterbridge_projector;
GRANT EXECUTE ON FUNCTION
    debit_user_credits(text, numeric, text, text, integer, integer, text, jsonb),
    debit_account_credits(text, numeric, text, text, integer, integer, text, jsonb),
    add_user_credits(text, numeric, text, text, text, integer, jsonb),
    add_account_credits(text, numeric, text, text, text, integer, jsonb),
    authorize_credits(text, numeric, integer, text, numeric), settle_reservation(text, numeric),
    expire_credits(text, integer)
TO meterbridge_api;
GRANT INSERT (user_id, org_id, tier, stripe_customer_id, overdraft_policy) ON user_credits TO meterbridge_api;
GRANT UPDATE (tier, stripe_customer_id, overdraft_policy) ON user_credits TO meterbridge_api;
GRANT UPDATE (released_at) ON credit_reservations TO meterbridge_api;

-- What was offered never changes; what Stripe said about it is added.
GRANT SELECT ON credit_purchases, stripe_customers, stripe_payments, stripe_events
TO meterbridge_projector, meterbridge_api, meterbridge_reader;
GRANT INSERT ON credit_purchases, stripe_customers, stripe_payments, stripe_events TO meterbridge_api;
GRANT UPDATE (session_id, live, ending) ON credit_purchases TO meterbridge_api;
GRANT UPDATE (purchase_id, facts, posted, postings) ON stripe_payments TO meterbridge_api;
GRANT UPDATE (event_type, outcome, detail, payment_intent, purchase_id, received_at) ON stripe_events TO meterbridge_api;
