-- The latest state of orgs. A record that is older than the row changes nothing.
INSERT INTO organisations AS o (
    org_id, name, email, plan, currency, status, subscription_id, limits, periods, updated_at, "offset",
    organization
)
SELECT
    org_id, name, email, plan, currency, status, subscription_id, limits::jsonb, periods::jsonb,
    to_timestamp(updated_us / 1000000.0), "offset", organization
FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::bigint[], $12::text[]
) AS given (
    org_id, "offset", name, email, plan, currency, status, subscription_id, limits, periods, updated_us, organization
)
ON CONFLICT (org_id) DO UPDATE SET
    name = EXCLUDED.name,
    email = EXCLUDED.email,
    plan = EXCLUDED.plan,
    currency = EXCLUDED.currency,
    status = EXCLUDED.status,
    subscription_id = EXCLUDED.subscription_id,
    limits = EXCLUDED.limits,
    periods = EXCLUDED.periods,
    updated_at = EXCLUDED.updated_at,
    organization = EXCLUDED.organization,
    "offset" = EXCLUDED."offset"
WHERE EXCLUDED."offset" >= o."offset"
