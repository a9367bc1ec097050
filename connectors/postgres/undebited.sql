-- How many of these billed calls name an account that is not debited for them: the client chose the user ($3: kinds that it cannot
-- choose), or the call has the id of another's reservation.
SELECT
    count(*) FILTER (
        WHERE NOT l.id_kind = ANY ($3::text[])
            AND l.billed_usd > 0
            AND EXISTS (
                SELECT FROM user_credits c
                WHERE c.account = 'user:' || l.customer_id AND c.prepaid_since <= LEAST(l.ended_at, l.recorded_at)
            )
            AND NOT EXISTS (
                SELECT FROM credit_transactions t WHERE t.idempotency_key = 'call:' || encode(l.identity, 'hex')
            )
    ),
    count(*) FILTER (
        WHERE l.call_id <> '' AND EXISTS (
            SELECT FROM credit_reservations r
            WHERE r.call_id = l.call_id AND r.settled_at IS NULL AND r.released_at IS NULL AND r.account NOT IN (
                CASE WHEN l.id_kind = ANY ($3::text[]) THEN 'user:' || l.customer_id ELSE '' END,
                'user:' || l.user_id, 'org:' || l.org_id, 'org:' || l.organization_id
            )
        )
    )
FROM unnest($1::bytea[], $2::text[]) AS c (identity, month)
JOIN call_terms l ON l.identity = c.identity AND l.month = c.month::date
