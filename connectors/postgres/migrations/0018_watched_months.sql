-- `meterbridge db prune` reads a month's table while others read and write it, and then deletes it under a short lock, unless
-- something was written meanwhile. While it does, the table has a trigger that counts here (connectors/postgres/forget_month.py).
-- A sequence counts also what is not committed yet, and nobody waits for it.
CREATE SEQUENCE late_call_writes OWNED BY forgotten_months.month;

-- For the owner: who writes calls has no right to count.
CREATE FUNCTION count_late_call() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM nextval('late_call_writes');
    RETURN NULL;
END
$$;

DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION count_late_call SET search_path = %I, pg_temp', current_schema());
    REVOKE ALL ON FUNCTION count_late_call FROM PUBLIC;
END
$$;
