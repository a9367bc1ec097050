-- Who may do what in Postgres. `meterbridge db roles` runs this file, and so does `meterbridge db migrate` where the roles
-- exist; psql may as well, in the schema of the tables. It may be repeated: what a role had before is taken back first.
--
-- The owner of the tables is whoever ran `meterbridge db migrate`: only that account changes or drops a table. Making the
-- roles takes CREATEROLE, once; granting takes the owner, or a superuser. They have no password until you give them one.
--
--   meterbridge_projector  worker --only project     writes what the topics say
--   meterbridge_api        serve --only api, keys    reads; writes api_keys alone
--   meterbridge_reader     every other command, and people: reads all but api_keys

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
    -- Postgres before 15 lets everybody make tables there: one with the name of a month would keep that month out.
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
END
$$;

GRANT SELECT ON
    llm_usage_log, usage_parts, rejected_calls, customer_records, organisations, audit_log, webhook_delivery_logs,
    doubled_calls, forgotten_months, log_completeness, projector_offsets, schema_version, unprojected_records,
    lago_events, held_parts, event_queue, litellm_usage_events, customer_mappings
TO meterbridge_projector, meterbridge_api, meterbridge_reader;
GRANT EXECUTE ON FUNCTION aggregate_customer_usage(text, timestamptz, timestamptz)
TO meterbridge_projector, meterbridge_api, meterbridge_reader;

-- A line of the audit log, an attempt, a pair of doubled calls is written once and never changed.
GRANT INSERT ON
    llm_usage_log, usage_parts, rejected_calls, customer_records, organisations, audit_log, webhook_delivery_logs,
    doubled_calls, log_completeness, projector_offsets, unprojected_records
TO meterbridge_projector;
GRANT UPDATE ON
    llm_usage_log, usage_parts, customer_records, organisations, log_completeness, projector_offsets, unprojected_records
TO meterbridge_projector;
GRANT UPDATE (resolution, audit_id, resolved_at) ON rejected_calls TO meterbridge_projector;
GRANT DELETE ON customer_records, organisations, unprojected_records TO meterbridge_projector;
GRANT EXECUTE ON FUNCTION ensure_usage_month(date) TO meterbridge_projector;

-- What a key may do, and its hash, stay as they were made.
GRANT SELECT, INSERT ON api_keys TO meterbridge_api;
GRANT UPDATE (expires_at, last_used_at, revoked_at) ON api_keys TO meterbridge_api;
