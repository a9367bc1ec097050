-- The only ways to move credits. An account is `user:<id>` or `org:<id>`. Examples: docs/credits.md.

-- A call that was projected before the account could be seen was not debited. So the account is prepaid since the commit that made
-- it, however long its transaction was: to read the calls again then debits none of them. A moment that was given stays.
CREATE FUNCTION credit_account_began() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_credits SET prepaid_since = clock_timestamp()
    WHERE account = NEW.account AND prepaid_since = NEW.prepaid_since;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER user_credits_began AFTER INSERT ON user_credits
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.prepaid_since = now()) EXECUTE FUNCTION credit_account_began();

-- The key that a caller gave a movement; NULL: none. One that is written like our own could make a call that was not debited
-- count as paid, so it is refused.
CREATE FUNCTION callers_credit_key(p_metadata jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF p_metadata ->> 'idempotency_key' ~ '^(call|calls|settle|stripe):' THEN
        RAISE EXCEPTION 'an idempotency key does not begin with call:, calls:, settle: or stripe:' USING ERRCODE = '22023';
    END IF;
    RETURN p_metadata ->> 'idempotency_key';
END
$$;

-- What a payment has brought an account: its purchase, and what Stripe's events gave back of it later. p_payment: Stripe's id of
-- it, or the transaction_id of its purchase.
CREATE FUNCTION credit_payment(p_account text, p_payment text) RETURNS SETOF credit_transactions LANGUAGE sql STABLE AS $$
    SELECT t.* FROM credit_transactions t
    WHERE t.account = p_account AND t.amount > 0 AND (
        t.stripe_transaction_id = p_payment
        OR t.transaction_id = CASE WHEN p_payment ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN p_payment::uuid END
    )
$$;

-- How many credits of a payment were not refunded yet, used or not; NULL: the account has no such payment.
CREATE FUNCTION refundable_credits(p_account text, p_payment text) RETURNS numeric LANGUAGE sql STABLE AS $$
    WITH payment AS MATERIALIZED (
        SELECT p.transaction_id, p.stripe_transaction_id AS stripe_id FROM credit_payment(p_account, p_payment) p
        WHERE p.transaction_type = 'purchase'
    )
    SELECT sum(m.amount) FROM (
        SELECT t.transaction_id, t.amount FROM payment p JOIN credit_transactions t ON t.transaction_id = p.transaction_id
        UNION
        SELECT t.transaction_id, t.amount FROM payment p JOIN credit_transactions t ON t.stripe_transaction_id = p.stripe_id
        WHERE t.account = p_account
        UNION
        SELECT t.transaction_id, t.amount
        FROM payment p JOIN credit_transactions t ON t.metadata ->> 'refund_of' IN (p.transaction_id::text, p.stripe_id)
        WHERE t.account = p_account AND t.transaction_type = 'refund' AND t.amount < 0
    ) AS m
$$;

-- Take what a call costs from an account, unless it has too little. A repeated key returns the first result.
CREATE FUNCTION debit_account_credits(
    p_account text, p_cost numeric, p_provider text, p_model text, p_prompt_tokens integer, p_completion_tokens integer,
    p_power_level text, p_metadata jsonb DEFAULT '{}'
) RETURNS TABLE (success boolean, new_balance numeric, transaction_id uuid, error_message text)
LANGUAGE plpgsql AS $$
DECLARE
    v_held user_credits;
    v_row credit_transactions;
    v_known credit_transactions;
    v_digest bytea;
BEGIN
    IF p_cost IS NULL OR p_cost < 0 OR p_cost >= 1e15 THEN
        RAISE EXCEPTION 'a debit is at least 0 and below 1e15' USING ERRCODE = '22023';
    END IF;
    v_held := lock_credit_account(p_account, false);
    IF v_held.account IS NULL THEN
        RETURN QUERY SELECT false, 0::numeric, NULL::uuid, 'no credit account';
        RETURN;
    END IF;
    v_row.account := p_account;
    v_row.transaction_type := 'debit';
    v_row.amount := -trim_scale(p_cost);
    v_row.provider := p_provider;
    v_row.model := p_model;
    v_row.prompt_tokens := p_prompt_tokens;
    v_row.completion_tokens := p_completion_tokens;
    v_row.power_level := NULLIF(p_power_level, '');
    v_row.metadata := COALESCE(p_metadata, '{}');
    v_row.idempotency_key := callers_credit_key(v_row.metadata);
    v_digest := credit_digest(to_jsonb(v_row));
    v_known := credit_movement(v_row.idempotency_key, v_digest);
    IF v_known.transaction_id IS NOT NULL THEN
        RETURN QUERY SELECT true, v_known.balance_after, v_known.transaction_id, NULL::text;
        RETURN;
    END IF;
    IF p_cost > available_credits(v_held, 0) THEN
        RETURN QUERY SELECT false, v_held.balance, NULL::uuid, 'insufficient credits';
        RETURN;
    END IF;
    v_row := book_credits(v_row, 'system:usage', v_digest);
    RETURN QUERY SELECT true, v_row.balance_after, v_row.transaction_id, NULL::text;
END
$$;

-- Add credits, or take them back with a negative amount of type refund or adjustment. The account is made if there is none.
-- Without a key of its own, a payment of Stripe's is booked once. metadata ->> 'expires_at': when the credits expire; 'refund_of':
-- the payment of this account that is refunded, up to what it has brought. MB004: there is no such payment; MB005: less is left of it.
CREATE FUNCTION add_account_credits(
    p_account text, p_amount numeric, p_transaction_type text, p_payment_method text DEFAULT NULL,
    p_stripe_transaction_id text DEFAULT NULL, p_package_id integer DEFAULT NULL, p_metadata jsonb DEFAULT '{}'
) RETURNS TABLE (success boolean, new_balance numeric, transaction_id uuid)
LANGUAGE plpgsql AS $$
DECLARE
    v_held user_credits;
    v_row credit_transactions;
    v_known credit_transactions;
    v_digest bytea;
    v_left numeric;
BEGIN
    IF p_amount IS NULL OR p_amount = 0 OR p_amount <= -1e15 OR p_amount >= 1e15 THEN
        RAISE EXCEPTION 'an amount is not 0, and between -1e15 and 1e15' USING ERRCODE = '22023';
    END IF;
    IF p_transaction_type IS NULL OR p_transaction_type NOT IN ('purchase', 'bonus', 'refund', 'adjustment') THEN
        RAISE EXCEPTION 'credits are added by a purchase, bonus, refund or adjustment' USING ERRCODE = '22023';
    END IF;
    IF p_amount < 0 AND p_transaction_type IN ('purchase', 'bonus') THEN
        RAISE EXCEPTION 'only a refund or an adjustment is negative' USING ERRCODE = '22023';
    END IF;
    v_held := lock_credit_account(p_account, true);
    v_row.account := p_account;
    v_row.transaction_type := p_transaction_type;
    v_row.amount := trim_scale(p_amount);
    v_row.payment_method := p_payment_method;
    v_row.stripe_transaction_id := p_stripe_transaction_id;
    v_row.package_id := p_package_id;
    v_row.metadata := COALESCE(p_metadata, '{}');
    v_row.idempotency_key := COALESCE(
        callers_credit_key(v_row.metadata), 'stripe:' || p_transaction_type || ':' || p_stripe_transaction_id
    );
    v_digest := credit_digest(to_jsonb(v_row));
    v_known := credit_movement(v_row.idempotency_key, v_digest);
    IF v_known.transaction_id IS NULL THEN
        IF p_transaction_type = 'refund' AND p_amount < 0 AND v_row.metadata ->> 'refund_of' IS NOT NULL THEN
            v_left := refundable_credits(p_account, v_row.metadata ->> 'refund_of');
            IF v_left IS NULL THEN
                RAISE EXCEPTION 'the account has no such payment' USING ERRCODE = 'MB004';
            ELSIF v_left < -p_amount THEN
                RAISE EXCEPTION 'less is left of the payment than is refunded' USING ERRCODE = 'MB005';
            END IF;
        END IF;
        v_known := book_credits(
            v_row,
            CASE
                WHEN p_transaction_type = 'bonus' THEN 'system:bonuses'
                WHEN p_transaction_type = 'adjustment' THEN 'system:adjustments'
                WHEN p_transaction_type = 'refund' AND p_amount > 0 THEN 'system:usage'
                ELSE 'system:payments'
            END,
            v_digest
        );
    END IF;
    RETURN QUERY SELECT true, v_known.balance_after, v_known.transaction_id;
END
$$;

CREATE FUNCTION debit_user_credits(
    p_user_id text, p_cost numeric, p_provider text, p_model text, p_prompt_tokens integer,
    p_completion_tokens integer, p_power_level text, p_metadata jsonb DEFAULT '{}'
) RETURNS TABLE (success boolean, new_balance numeric, transaction_id uuid, error_message text)
LANGUAGE sql AS $$
    SELECT * FROM debit_account_credits(
        'user:' || p_user_id, p_cost, p_provider, p_model, p_prompt_tokens, p_completion_tokens, p_power_level, p_metadata
    )
$$;

CREATE FUNCTION add_user_credits(
    p_user_id text, p_amount numeric, p_transaction_type text, p_payment_method text DEFAULT NULL,
    p_stripe_transaction_id text DEFAULT NULL, p_package_id integer DEFAULT NULL, p_metadata jsonb DEFAULT '{}'
) RETURNS TABLE (success boolean, new_balance numeric, transaction_id uuid)
LANGUAGE sql AS $$
    SELECT * FROM add_account_credits(
        'user:' || p_user_id, p_amount, p_transaction_type, p_payment_method, p_stripe_transaction_id, p_package_id, p_metadata
    )
$$;

CREATE FUNCTION get_user_balance(p_user_id text) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT get_account_balance('user:' || p_user_id)
$$;

-- Reserve p_amount for a call, if balance and allowed overdraft have it. The same call_id with the same contents returns
-- the first result. available: what is left for further reservations. An account is made only if it has an overdraft.
CREATE FUNCTION authorize_credits(
    p_account text, p_amount numeric, p_ttl_seconds integer, p_call_id text, p_overdraft numeric DEFAULT 0
) RETURNS TABLE (authorized boolean, reservation_id uuid, available numeric)
LANGUAGE plpgsql AS $$
DECLARE
    v_held user_credits;
    v_there credit_reservations;
    v_free numeric;
    v_id uuid;
BEGIN
    IF p_amount IS NULL OR p_amount < 0 OR p_amount >= 1e15
        OR p_overdraft IS NULL OR p_overdraft < 0 OR p_overdraft >= 1e15
        OR p_ttl_seconds IS NULL OR p_ttl_seconds NOT BETWEEN 1 AND 86400 OR octet_length(p_call_id) > 512
    THEN
        RAISE EXCEPTION 'amounts are at least 0 and below 1e15, the time is 1 to 86400 s, a call id at most 512 bytes'
            USING ERRCODE = '22023';
    END IF;
    v_held := lock_credit_account(p_account, p_overdraft > 0 AND p_overdraft >= p_amount);
    IF v_held.account IS NULL THEN
        RETURN QUERY SELECT false, NULL::uuid, 0::numeric;
        RETURN;
    END IF;
    v_free := available_credits(v_held, p_overdraft);
    IF p_call_id <> '' THEN
        SELECT * INTO v_there FROM credit_reservations r
        WHERE r.call_id = p_call_id AND r.released_at IS NULL ORDER BY r.created_at DESC LIMIT 1;
        IF FOUND AND v_there.settled_at IS NULL AND v_there.expires_at <= clock_timestamp() THEN
            UPDATE credit_reservations r SET released_at = clock_timestamp()
            WHERE r.reservation_id = v_there.reservation_id AND r.settled_at IS NULL AND r.released_at IS NULL;
        ELSIF FOUND THEN
            IF v_there.settled_at IS NOT NULL THEN  -- a call is paid once: one reservation does not serve for many calls
                RAISE EXCEPTION 'the call of this id is settled' USING ERRCODE = 'MB001';
            END IF;
            IF v_there.account <> p_account OR v_there.amount <> p_amount THEN
                RAISE EXCEPTION 'the call id was used for another reservation' USING ERRCODE = 'MB001';
            END IF;
            RETURN QUERY SELECT true, v_there.reservation_id, GREATEST(v_free, 0);
            RETURN;
        END IF;
    END IF;
    IF p_amount > v_free THEN
        RETURN QUERY SELECT false, NULL::uuid, GREATEST(v_free, 0);
        RETURN;
    END IF;
    INSERT INTO credit_reservations (account, amount, expires_at, call_id, created_at)
    VALUES (
        p_account, p_amount, clock_timestamp() + make_interval(secs => p_ttl_seconds), NULLIF(p_call_id, ''), clock_timestamp()
    )
    ON CONFLICT (call_id) WHERE call_id IS NOT NULL AND settled_at IS NULL AND released_at IS NULL DO NOTHING
    RETURNING credit_reservations.reservation_id INTO v_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the call id was used for another reservation' USING ERRCODE = 'MB001';
    END IF;
    RETURN QUERY SELECT true, v_id, v_free - p_amount;
END
$$;

-- Take what a call has cost, which may be more or less than was reserved, and end its reservation. With 0 it only ends.
-- When the call's own record has settled it already, nothing more is taken.
CREATE FUNCTION settle_reservation(p_call_id text, p_amount numeric)
RETURNS TABLE (success boolean, new_balance numeric, transaction_id uuid, error_message text)
LANGUAGE plpgsql AS $$
DECLARE
    v_held user_credits;
    v_there credit_reservations;
    v_row credit_transactions;
    v_known credit_transactions;
    v_digest bytea;
BEGIN
    IF p_amount IS NULL OR p_amount < 0 OR p_amount >= 1e15 THEN
        RAISE EXCEPTION 'an amount is at least 0 and below 1e15' USING ERRCODE = '22023';
    END IF;
    SELECT * INTO v_there FROM credit_reservations r WHERE r.call_id = p_call_id ORDER BY r.created_at DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false, 0::numeric, NULL::uuid, 'no reservation';
        RETURN;
    END IF;
    v_held := lock_credit_account(v_there.account, false);
    v_row.account := v_there.account;
    v_row.transaction_type := 'debit';
    v_row.amount := -trim_scale(p_amount);
    v_row.metadata := jsonb_build_object('call_id', p_call_id);
    v_row.idempotency_key := 'settle:' || p_call_id;
    v_digest := credit_digest(to_jsonb(v_row));
    v_known := credit_movement(v_row.idempotency_key, v_digest);
    IF v_known.transaction_id IS NOT NULL THEN
        RETURN QUERY SELECT true, v_known.balance_after, v_known.transaction_id, NULL::text;
        RETURN;
    END IF;
    SELECT * INTO v_there FROM credit_reservations r WHERE r.reservation_id = v_there.reservation_id FOR UPDATE;
    IF v_there.settled_at IS NULL AND v_there.identity IS NULL AND p_amount > 0 THEN
        v_row := book_credits(v_row, 'system:usage', v_digest);
    END IF;
    UPDATE credit_reservations r SET settled_at = clock_timestamp()
    WHERE r.reservation_id = v_there.reservation_id AND r.settled_at IS NULL AND r.released_at IS NULL;
    RETURN QUERY SELECT true, COALESCE(v_row.balance_after, v_held.balance), v_row.transaction_id, NULL::text;
END
$$;

-- End what is over of one account: release its reservations, expire its grants; at most p_most of each. The account is locked
-- first, as by every function. If it is locked already, nothing is done and there is no row: nothing waits for this.
CREATE FUNCTION expire_credits(p_account text, p_most integer DEFAULT 1000)
RETURNS TABLE (released integer, expired_usd numeric) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_held user_credits;
BEGIN
    SELECT * INTO v_held FROM user_credits c WHERE c.account = p_account FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE credit_reservations r SET released_at = clock_timestamp()
    FROM (
        SELECT i.reservation_id FROM credit_reservations i
        WHERE i.account = p_account AND i.settled_at IS NULL AND i.released_at IS NULL AND i.expires_at <= v_now
        ORDER BY i.expires_at LIMIT p_most FOR UPDATE SKIP LOCKED
    ) AS o
    WHERE r.reservation_id = o.reservation_id;
    GET DIAGNOSTICS released = ROW_COUNT;
    expired_usd := expire_account_credits(v_held, p_most);
    RETURN NEXT;
END
$$;

-- What is wrong in the books; a row is a mistake, so there must be none. `meterbridge credits check` reads it.
CREATE VIEW credit_imbalances AS
SELECT 'all_entries' AS problem, '' AS place, 0::numeric AS expected, sum(e.amount) AS found
FROM ledger_entries e HAVING sum(e.amount) <> 0
UNION ALL
SELECT 'ledger_transaction', e.transaction_id::text, 0, sum(e.amount)
FROM ledger_entries e GROUP BY e.transaction_id HAVING sum(e.amount) <> 0
UNION ALL
SELECT 'balance', c.account, COALESCE(e.total, 0), c.balance
FROM user_credits c
LEFT JOIN (SELECT account, sum(amount) AS total FROM ledger_entries GROUP BY account) e ON e.account = c.account
WHERE c.balance <> COALESCE(e.total, 0)
UNION ALL
SELECT 'overdraft', c.account, -COALESCE(e.total, 0), c.overdraft
FROM user_credits c
LEFT JOIN (SELECT account, sum(amount) AS total FROM ledger_entries GROUP BY account) e
    ON e.account = 'overdraft:' || c.account
WHERE c.overdraft <> -COALESCE(e.total, 0)
UNION ALL
SELECT 'grants', c.account, c.balance, COALESCE(g.total, 0)
FROM user_credits c
LEFT JOIN (SELECT account, sum(remaining) AS total FROM credit_grants WHERE remaining > 0 GROUP BY account) g
    ON g.account = c.account
WHERE c.balance <> COALESCE(g.total, 0)
UNION ALL
SELECT 'audit_trail', l.transaction_id::text, COALESCE(e.total, 0), COALESCE(t.total, 0)
FROM ledger_transactions l
LEFT JOIN (
    SELECT i.transaction_id, sum(i.amount) AS total FROM ledger_entries i
    JOIN ledger_accounts a ON a.account = i.account AND a.kind <> 'system' GROUP BY i.transaction_id
) e ON e.transaction_id = l.transaction_id
LEFT JOIN (SELECT ledger_transaction, sum(amount) AS total FROM credit_transactions GROUP BY ledger_transaction) t
    ON t.ledger_transaction = l.transaction_id
WHERE COALESCE(e.total, 0) <> COALESCE(t.total, 0);

-- Who may move credits may do it by these functions alone: they act for the tables' owner, in their schema, whatever the
-- caller's search path says; what they are made of only they may call. The rights to call them are in roles.sql.
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname IN (
            'set_updated_at', 'credit_account_opened', 'credit_account_began', 'callers_credit_key', 'credit_payment',
            'refundable_credits', 'ledger_is_balanced', 'ledger_is_append_only', 'credit_digest',
            'available_credits', 'credit_movement', 'book_credits', 'expire_account_credits', 'lock_credit_account',
            'debit_account_credits', 'add_account_credits', 'get_account_balance', 'debit_user_credits',
            'add_user_credits', 'get_user_balance', 'authorize_credits', 'settle_reservation',
            'expire_credits'
        )
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
        CONTINUE WHEN v_function::text ~
            '^(credit_(digest|movement|payment)|available_|callers_|refundable_|book_|expire_account_|lock_credit_)';
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', v_function, current_schema());
    END LOOP;
END
$$;
