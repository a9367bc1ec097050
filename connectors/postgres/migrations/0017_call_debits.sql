-- Calls are debited from prepaid credits: who pays, how much, once. The projector calls this in the transaction that moves its
-- offset (connectors/postgres/debits.py). Why so: ADR 0032 and 0036.

-- What each call is billed at, and for which org, as far as is known now. A call is decided when the event of its part bills it, or
-- that of the part into which its part was released, or when its part is written off; until then it is as its record says.
-- The payer's factor of a rate card is the event's (ADR 0031).
CREATE VIEW call_terms AS
SELECT
    u.identity, u.month, u.part, u.customer_id, u.id_kind, u.user_id, u.organization_id, u.call_id, u.status, u.provider,
    u.model, u.tokens_input, u.tokens_output, u.power_level, u.ended_at, u.recorded_at,
    CASE WHEN e.event IS NULL THEN u.org_id ELSE e.org_id END AS org_id,
    CASE
        WHEN e.event IS NULL AND p.status = 'written_off' THEN 0
        WHEN u.billed_usd IS NULL THEN CASE WHEN u.decision IN ('billable', 'failed_with_cost') THEN u.cost_usd ELSE 0 END
        WHEN e.event IS NULL THEN u.billed_usd
        ELSE COALESCE(u.price_usd, u.billed_usd) * CASE
            WHEN e.event #>> '{properties,rate_factor}' ~ '^[0-9]{1,9}(\.[0-9]{1,9})?$'
            THEN (e.event #>> '{properties,rate_factor}')::numeric ELSE 1
        END
    END AS billed_usd,
    e.event IS NOT NULL OR p.status IS NOT DISTINCT FROM 'written_off' AS decided
FROM llm_usage_log u
LEFT JOIN usage_parts p ON u.part <> '' AND p.part = u.part
LEFT JOIN usage_parts e ON e.part = CASE WHEN p.event IS NULL THEN p.released_in ELSE p.part END;

-- Parts whose event or write-off may bill calls otherwise than they were counted, or was projected before them. Of the calls that come
-- later, only those of such a part are looked at again. done: the calls that were there are corrected.
CREATE TABLE corrected_parts (
    part text COLLATE "C" PRIMARY KEY,
    done boolean NOT NULL DEFAULT false,
    found_at timestamptz NOT NULL DEFAULT now()
);

-- Who pays for each of these calls, how much, and what was taken for it so far. The accounts that can pay are the call's own:
--
--   1. of its open reservation, which is found by the call id. A client can choose that, so it must be one of the others;
--   2. of its customer, or the user of its key; 3. of its org.
--
-- An account of 2 and 3 pays for calls that ended and were counted since it is prepaid. A reservation counts if it was open when
-- the call was counted, or was settled by this call; one that had ended is the call's all the same, so that settle_reservation
-- takes nothing more.
-- A call that is not decided yet is debited once and stays as it is. For one that is decided, the difference is due.
-- p_customer_id: empty where the client chose it (streams/core/metering/customer_key.py). p_decided: an event bills the call, or it is
-- written off, and org and amount are those. key: of the call's next movement.
CREATE FUNCTION call_debts(
    p_identity bytea[], p_call_id text[], p_customer_id text[], p_user_id text[], p_org_id text[],
    p_organization_id text[], p_amount numeric[], p_ended_at timestamptz[], p_recorded_at timestamptz[],
    p_decided boolean[], p_accounts text[]
) RETURNS TABLE (
    n bigint, key text, account text, due numeric, payer text, paid numeric, reservation_id uuid, settled boolean
) LANGUAGE sql STABLE AS $$
    WITH call AS MATERIALIZED (
        SELECT c.*, 'call:' || encode(c.identity, 'hex') AS key
        FROM unnest(
            p_identity, p_call_id, p_customer_id, p_user_id, p_org_id, p_organization_id, p_amount, p_ended_at,
            p_recorded_at, p_decided
        ) WITH ORDINALITY AS c (
            identity, call_id, customer_id, user_id, org_id, organization_id, amount, ended_at, recorded_at, decided, n
        )
        WHERE COALESCE(c.decided, false) OR NOT EXISTS (
            SELECT FROM credit_transactions t WHERE t.idempotency_key = 'call:' || encode(c.identity, 'hex')
        )
    ), held AS MATERIALIZED (
        SELECT c.account, c.prepaid_since FROM user_credits c WHERE c.account = ANY (p_accounts)
    ), reserved AS MATERIALIZED (
        SELECT DISTINCT ON (c.n) c.n, CASE WHEN s.counts THEN r.account END AS account, r.reservation_id,
            s.settled AND COALESCE(
                r.identity = c.identity, row_number() OVER (PARTITION BY r.reservation_id, c.amount > 0 ORDER BY c.n) = 1
            ) AS settled
        FROM call c
        JOIN credit_reservations r ON r.call_id = c.call_id AND r.account = ANY (p_accounts) AND r.account IN (
            'user:' || c.customer_id, 'user:' || c.user_id, 'org:' || c.org_id, 'org:' || c.organization_id
        )
        CROSS JOIN LATERAL (
            SELECT t.settled, r.identity = c.identity OR r.identity IS NULL AND (
                t.settled OR r.settled_at IS NULL AND r.expires_at > c.recorded_at
                    AND (r.released_at IS NULL OR r.released_at >= r.expires_at)
            ) AS counts
            FROM (SELECT EXISTS (
                SELECT FROM credit_transactions m
                WHERE m.idempotency_key = 'settle:' || r.call_id AND m.account = r.account
            ) AS settled) AS t
        ) AS s
        WHERE r.identity IS NULL OR r.identity = c.identity
        ORDER BY c.n, s.counts DESC NULLS LAST, r.created_at DESC
    ), taken AS MATERIALIZED (
        SELECT DISTINCT ON (m.n) m.n, CASE WHEN m.amount > 0 THEN m.account END AS payer,
            GREATEST(m.amount, 0) AS amount, m.moves
        FROM (
            SELECT c.n, t.account, -sum(t.amount) AS amount, sum(count(*)) OVER (PARTITION BY c.n) AS moves
            FROM call c
            JOIN credit_transactions t ON t.idempotency_key >= c.key AND t.idempotency_key < c.key || ';'
            WHERE c.decided
            GROUP BY c.n, t.account
        ) AS m
        ORDER BY m.n, m.amount DESC
    )
    SELECT c.n, c.key || COALESCE(':' || t.moves, ''),
        CASE
            WHEN t.payer NOT LIKE 'org:%' OR t.payer IN ('org:' || c.org_id, 'org:' || c.organization_id) THEN t.payer
            ELSE COALESCE(r.account, u.account, k.account, o.account)
        END,
        c.amount, t.payer, COALESCE(t.amount, 0), r.reservation_id, COALESCE(r.settled, false)
    FROM call c
    LEFT JOIN reserved r ON r.n = c.n
    LEFT JOIN held u ON u.account = 'user:' || c.customer_id AND u.prepaid_since <= LEAST(c.ended_at, c.recorded_at)
    LEFT JOIN held k ON k.account = 'user:' || c.user_id AND k.prepaid_since <= LEAST(c.ended_at, c.recorded_at)
    LEFT JOIN held o ON o.account = 'org:' || c.org_id AND o.prepaid_since <= LEAST(c.ended_at, c.recorded_at)
    LEFT JOIN taken t ON t.n = c.n
$$;

-- Book movements of calls of locked accounts: all are a debit, or all a refund, of an amount above 0. An account gets one ledger
-- transaction. What a balance does not cover becomes overdraft. A refund repays overdraft first; the rest is a grant without an end.
-- owed: the part of the amount that changed overdraft.
CREATE FUNCTION book_calls(
    p_type text, p_key text[], p_account text[], p_amount numeric[], p_call_id text[], p_provider text[] DEFAULT NULL,
    p_model text[] DEFAULT NULL, p_prompt_tokens bigint[] DEFAULT NULL, p_completion_tokens bigint[] DEFAULT NULL,
    p_power_level text[] DEFAULT NULL
) RETURNS TABLE (calls bigint, amount numeric, owed numeric)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_sign integer := CASE p_type WHEN 'debit' THEN -1 WHEN 'refund' THEN 1 END;
BEGIN
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT m.*, sum(m.amount) OVER (PARTITION BY m.account ORDER BY m.n) AS running
        FROM unnest(
            p_key, p_account, p_amount, p_call_id, p_provider, p_model, p_prompt_tokens, p_completion_tokens, p_power_level
        ) WITH ORDINALITY AS m (
            key, account, amount, call_id, provider, model, prompt_tokens, completion_tokens, power_level, n
        )
    ), total AS MATERIALIZED (
        SELECT s.*, s.amount - s.own AS owed, gen_random_uuid() AS ledger_transaction FROM (
            SELECT d.account, c.balance, sum(d.amount) AS amount,
                CASE
                    WHEN v_sign < 0 THEN LEAST(sum(d.amount), c.balance) ELSE GREATEST(sum(d.amount) - c.overdraft, 0)
                END AS own,
                sha256(convert_to(string_agg(d.key || '=' || d.amount, ' ' ORDER BY d.n), 'UTF8')) AS digest
            FROM due d JOIN user_credits c ON c.account = d.account GROUP BY d.account, c.balance, c.overdraft
        ) AS s
    ), booked AS (
        INSERT INTO ledger_transactions (transaction_id, idempotency_key, digest, transaction_type)
        SELECT t.ledger_transaction, 'calls:' || t.ledger_transaction, t.digest, p_type FROM total t
    ), entered AS (
        INSERT INTO ledger_entries (transaction_id, line, account, amount)
        SELECT t.ledger_transaction, e.line, e.account, v_sign * e.amount
        FROM total t CROSS JOIN LATERAL (VALUES
            (1, t.account, t.own), (2, 'overdraft:' || t.account, t.owed), (3, 'system:usage', -t.amount)
        ) AS e (line, account, amount) WHERE e.amount <> 0
    ), moved AS (
        UPDATE user_credits c SET balance = c.balance + v_sign * t.own, overdraft = c.overdraft - v_sign * t.owed
        FROM total t WHERE c.account = t.account
    ), granted AS (
        INSERT INTO credit_grants (account, ledger_transaction, amount, remaining)
        SELECT t.account, t.ledger_transaction, t.own, t.own FROM total t WHERE v_sign > 0 AND t.own > 0
    ), used AS (
        UPDATE credit_grants g SET remaining = g.remaining - LEAST(g.remaining, o.own - o.before)
        FROM (
            SELECT i.grant_id, t.own,
                sum(i.remaining) OVER (PARTITION BY i.account ORDER BY i.expires_at, i.grant_id) - i.remaining AS before
            FROM total t JOIN credit_grants i ON i.account = t.account AND i.remaining > 0
            WHERE v_sign < 0
        ) AS o
        WHERE g.grant_id = o.grant_id AND o.before < o.own
    ), told AS (
        INSERT INTO credit_transactions (
            account, transaction_type, amount, balance_after, provider, model, prompt_tokens, completion_tokens,
            power_level, metadata, idempotency_key, ledger_transaction
        )
        SELECT d.account, p_type, v_sign * d.amount,
            CASE
                WHEN v_sign < 0 THEN GREATEST(t.balance - d.running, 0)
                ELSE t.balance + GREATEST(d.running - t.owed, 0)
            END,
            d.provider, d.model, d.prompt_tokens, d.completion_tokens, d.power_level,
            CASE WHEN d.call_id = '' THEN '{}' ELSE jsonb_build_object('call_id', d.call_id) END,
            d.key, t.ledger_transaction
        FROM due d JOIN total t ON t.account = d.account
        ORDER BY d.n
    )
    SELECT (SELECT count(*) FROM due), COALESCE(sum(t.amount), 0), COALESCE(sum(t.owed), 0) FROM total t;
END
$$;

-- Give back what was taken for calls that are billed at less now, to another account, or not at all.
CREATE FUNCTION return_calls(
    p_identity bytea[], p_call_id text[], p_customer_id text[], p_user_id text[], p_org_id text[],
    p_organization_id text[], p_amount numeric[], p_ended_at timestamptz[], p_recorded_at timestamptz[],
    p_decided boolean[], p_accounts text[]
) RETURNS bigint LANGUAGE sql AS $$
    SELECT b.calls
    FROM (
        SELECT array_agg(d.key ORDER BY d.n) AS keys, array_agg(d.payer ORDER BY d.n) AS accounts,
            array_agg(d.amount ORDER BY d.n) AS amounts, array_agg(p_call_id[d.n] ORDER BY d.n) AS call_ids
        FROM (
            SELECT d.*, d.paid - CASE WHEN d.payer = d.account THEN d.due ELSE 0 END AS amount
            FROM call_debts(
                p_identity, p_call_id, p_customer_id, p_user_id, p_org_id, p_organization_id, p_amount, p_ended_at,
                p_recorded_at, p_decided, p_accounts
            ) AS d
            WHERE d.payer IS NOT NULL
        ) AS d
        WHERE d.amount > 0
    ) AS r
    CROSS JOIN LATERAL book_calls('refund', r.keys, r.accounts, r.amounts, r.call_ids) AS b
$$;

-- Debit calls of the usage log, each once, by its identity, and settle their reservations. p_succeeded: a failed try settles none,
-- because its retry may run under the same call id. A call that settle_reservation has debited is not debited again.
CREATE FUNCTION debit_calls(
    p_identity bytea[], p_call_id text[], p_customer_id text[], p_user_id text[], p_org_id text[],
    p_organization_id text[], p_amount numeric[], p_ended_at timestamptz[], p_recorded_at timestamptz[],
    p_succeeded boolean[], p_provider text[], p_model text[], p_prompt_tokens bigint[], p_completion_tokens bigint[],
    p_power_level text[], p_decided boolean[] DEFAULT NULL
) RETURNS TABLE (calls bigint, amount numeric, overdraft numeric)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_accounts text[];
BEGIN
    SELECT array_agg(c.account ORDER BY c.account) INTO v_accounts FROM user_credits c WHERE c.account IN (
        SELECT 'user:' || id FROM unnest(p_customer_id || p_user_id) AS id
        UNION SELECT 'org:' || id FROM unnest(p_org_id || p_organization_id) AS id
        UNION SELECT t.account FROM unnest(p_identity, p_decided) AS d (identity, decided)
        JOIN credit_transactions t ON t.idempotency_key >= 'call:' || encode(d.identity, 'hex')
            AND t.idempotency_key < 'call:' || encode(d.identity, 'hex') || ';'
        WHERE d.decided
    );
    IF v_accounts IS NULL THEN
        RETURN QUERY SELECT 0::bigint, 0::numeric, 0::numeric;
        RETURN;
    END IF;
    PERFORM FROM user_credits c WHERE c.account = ANY (v_accounts) ORDER BY c.account FOR UPDATE;
    PERFORM expire_account_credits(c, NULL) FROM user_credits c WHERE c.account IN (
        SELECT g.account FROM credit_grants g
        WHERE g.account = ANY (v_accounts) AND g.remaining > 0 AND g.expires_at <= clock_timestamp()
    );
    IF true = ANY (p_decided) THEN
        PERFORM return_calls(
            p_identity, p_call_id, p_customer_id, p_user_id, p_org_id, p_organization_id, p_amount, p_ended_at,
            p_recorded_at, p_decided, v_accounts
        );
    END IF;
    RETURN QUERY
    WITH call AS MATERIALIZED (
        SELECT d.*, c.identity, c.call_id, c.succeeded, c.provider, c.model, GREATEST(c.prompt_tokens, 0) AS prompt_tokens,
            GREATEST(c.completion_tokens, 0) AS completion_tokens,
            CASE WHEN c.power_level IN ('eco', 'balanced', 'precision') THEN c.power_level END AS power_level,
            d.due - CASE WHEN d.payer = d.account THEN d.paid ELSE 0 END AS amount
        FROM call_debts(
            p_identity, p_call_id, p_customer_id, p_user_id, p_org_id, p_organization_id, p_amount, p_ended_at,
            p_recorded_at, p_decided, v_accounts
        ) AS d
        JOIN unnest(
            p_identity, p_call_id, p_succeeded, p_provider, p_model, p_prompt_tokens, p_completion_tokens, p_power_level
        ) WITH ORDINALITY AS c (
            identity, call_id, succeeded, provider, model, prompt_tokens, completion_tokens, power_level, n
        ) ON c.n = d.n
        WHERE d.account IS NOT NULL
    ), settled AS (
        UPDATE credit_reservations r SET
            settled_at = CASE WHEN r.released_at IS NULL THEN COALESCE(r.settled_at, clock_timestamp()) END,
            identity = f.identity
        FROM (
            SELECT DISTINCT ON (c.reservation_id) c.reservation_id, CASE WHEN c.due > 0 THEN c.identity END AS identity
            FROM call c WHERE c.reservation_id IS NOT NULL AND (c.succeeded OR c.settled)
            ORDER BY c.reservation_id, c.due > 0 DESC, c.n
        ) AS f
        WHERE r.reservation_id = f.reservation_id AND r.identity IS NULL
    )
    SELECT b.calls, b.amount, b.owed
    FROM (
        SELECT array_agg(c.key ORDER BY c.n) AS keys, array_agg(c.account ORDER BY c.n) AS accounts,
            array_agg(c.amount ORDER BY c.n) AS amounts, array_agg(c.call_id ORDER BY c.n) AS call_ids,
            array_agg(c.provider ORDER BY c.n) AS providers, array_agg(c.model ORDER BY c.n) AS models,
            array_agg(c.prompt_tokens ORDER BY c.n) AS prompts, array_agg(c.completion_tokens ORDER BY c.n) AS completions,
            array_agg(c.power_level ORDER BY c.n) AS power_levels
        FROM call c WHERE c.amount > 0 AND NOT c.settled
    ) AS d
    CROSS JOIN LATERAL book_calls(
        'debit', d.keys, d.accounts, d.amounts, d.call_ids, d.providers, d.models, d.prompts, d.completions, d.power_levels
    ) AS b;
END
$$;

-- Calls of the customer whose name an account has, and which no account was debited for: the client chose that name, or the call
-- was not taken yet.
CREATE VIEW undebited_calls AS
SELECT c.account, u.identity, u.customer_id, u.id_kind, u.user_id, u.org_id, u.call_id, u.ended_at, u.billed_usd
FROM user_credits c
JOIN call_terms u ON u.customer_id = c.user_id AND c.prepaid_since <= LEAST(u.ended_at, u.recorded_at)
WHERE u.billed_usd > 0 AND NOT EXISTS (
    SELECT FROM credit_transactions t WHERE t.idempotency_key = 'call:' || encode(u.identity, 'hex')
);

REVOKE ALL ON FUNCTION call_debts, book_calls, return_calls, debit_calls FROM PUBLIC;
-- All movements of a call are found by a range of keys. While the table is small, or grew in this transaction, the planner would read
-- all of it for each call, and a release of many calls would take time that grows with their square.
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION debit_calls SECURITY DEFINER SET search_path = %I, pg_temp SET enable_seqscan = off', current_schema()
    );
    -- Its statement is long and soon done: to compile it (Postgres' just-in-time compiler) takes some seconds for each batch.
    ALTER FUNCTION debit_calls SET jit = off;
END
$$;
