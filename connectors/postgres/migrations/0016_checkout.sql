-- Credits that are bought through Stripe: what was offered, what Stripe said about the payments, and each event once
-- (docs/adr/0033-what-a-payment-is-worth.md). No projection: to be backed up.

-- An offer that somebody accepted. It keeps what was offered, so that a later change of the package changes no open purchase.
-- credits: with bonus. price: in the smallest unit of the currency. contents: SHA-256 of the request, to know a repeat of its key.
CREATE TABLE credit_purchases (
    purchase_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account text COLLATE "C" NOT NULL CHECK (
        (account LIKE 'user:_%' OR account LIKE 'org:_%') AND octet_length(account) <= 517
    ),
    package_id integer NOT NULL REFERENCES credit_packages,
    name text NOT NULL,
    credits numeric NOT NULL CHECK (credits > 0 AND credits < 1e15),
    price bigint NOT NULL CHECK (price > 0),
    currency text NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    idempotency_key text COLLATE "C" CHECK (octet_length(idempotency_key) <= 255),
    contents bytea NOT NULL CHECK (octet_length(contents) = 32),
    session_id text COLLATE "C" UNIQUE CHECK (octet_length(session_id) <= 255),
    live boolean,
    ending text NOT NULL DEFAULT '' CHECK (ending IN ('', 'paid', 'expired', 'failed')),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account, idempotency_key),
    CHECK ((session_id IS NULL) = (live IS NULL))
);

-- The facts about one payment. posted: the credits that the account has for it now. postings: how often that changed.
-- purchase_id NULL: events about it came before the one that says what was bought, or it is no payment of ours.
CREATE TABLE stripe_payments (
    payment_intent text COLLATE "C" PRIMARY KEY CHECK (octet_length(payment_intent) <= 255),
    purchase_id uuid REFERENCES credit_purchases,
    facts jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(facts) = 'object'),
    posted numeric NOT NULL DEFAULT 0 CHECK (posted >= 0 AND posted < 1e15),
    postings integer NOT NULL DEFAULT 0 CHECK (postings >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Stripe's customer of an account, made when it first begins to buy. user_credits gets it with the first payment: an account
-- there is prepaid, and a purchase that is only begun makes nobody prepaid.
CREATE TABLE stripe_customers (
    account text COLLATE "C" PRIMARY KEY CHECK (octet_length(account) <= 517),
    customer_id text COLLATE "C" NOT NULL UNIQUE CHECK (octet_length(customer_id) <= 255),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Every event of Stripe's that was taken, once. outcome: what was done, or why nothing was (docs/errors.md).
CREATE TABLE stripe_events (
    event_id text COLLATE "C" PRIMARY KEY CHECK (octet_length(event_id) <= 255),
    event_type text NOT NULL,
    outcome text NOT NULL,
    detail text NOT NULL DEFAULT '',
    payment_intent text COLLATE "C" CHECK (octet_length(payment_intent) <= 255),
    purchase_id uuid,
    received_at timestamptz NOT NULL DEFAULT now()
);

-- The payments of a purchase:
CREATE INDEX stripe_payments_purchase ON stripe_payments (purchase_id) WHERE purchase_id IS NOT NULL;
-- The events about a payment:
CREATE INDEX stripe_events_payment ON stripe_events (payment_intent, received_at) WHERE payment_intent IS NOT NULL;
-- Payments that were refused, the latest first:
CREATE INDEX stripe_events_refused ON stripe_events (received_at DESC)
    WHERE outcome NOT IN ('applied', 'unchanged', 'ignored', 'noted', 'waiting');
-- The purchases of an account:
CREATE INDEX credit_purchases_account ON credit_purchases (account, created_at DESC);

CREATE TRIGGER stripe_payments_updated_at BEFORE UPDATE ON stripe_payments
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();
