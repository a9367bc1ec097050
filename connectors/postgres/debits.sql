-- Debits calls of prepaid accounts by what is known of them now. The result is one row: calls, amount, overdraft.
-- $3: kinds of ids that name a user who pays. An id of another kind, such as `end_user`, the client chose.
-- $4: whether a rebuilt ledger has counted the call again. What was debited for it before is compared with what is due, as it is
-- for a call whose event is known, and for one whose debit was given back. If the event or write-off of its part gave it back, it
-- will come again when the tables are filled anew: until then the debit stays as it is. A part that calls have only left
-- (`recounted`) has no such event.
SELECT d.calls, d.amount, d.overdraft
FROM (
    SELECT
        array_agg(u.identity) AS identities, array_agg(u.call_id) AS call_ids,
        array_agg(CASE WHEN u.id_kind = ANY ($3::text[]) THEN u.customer_id ELSE '' END) AS customer_ids,
        array_agg(CASE WHEN u.named_by_litellm AND 'user' = ANY ($3::text[]) THEN u.user_id ELSE '' END) AS user_ids,
        array_agg(u.org_id) AS org_ids,
        array_agg(CASE WHEN u.named_by_litellm THEN u.organization_id ELSE '' END) AS organization_ids,
        array_agg(u.billed_usd) AS amounts, array_agg(u.to_compare) AS decided,
        array_agg(u.ended_at) AS ended, array_agg(u.recorded_at) AS recorded,
        array_agg(u.status <> 'failure') AS succeeded, array_agg(u.provider) AS providers,
        array_agg(u.model) AS models, array_agg(u.tokens_input) AS prompts, array_agg(u.tokens_output) AS completions,
        array_agg(u.power_level) AS power_levels
    FROM (
        SELECT l.*, l.id_kind IN ('end_user', 'user', 'team', 'organization', 'key', 'unattributed') AS named_by_litellm,
            l.decided OR c.again OR (
                EXISTS (
                    SELECT FROM credit_transactions t WHERE t.idempotency_key = 'call:' || encode(l.identity, 'hex') || ':1'
                ) AND NOT EXISTS (SELECT FROM corrected_parts m WHERE m.part = l.part AND NOT m.recounted)
            ) AS to_compare
        FROM unnest($1::bytea[], $2::text[], $4::boolean[]) WITH ORDINALITY AS c (identity, month, again, number)
        JOIN call_terms l ON l.identity = c.identity AND l.month = c.month::date
        ORDER BY c.number
    ) AS u
) AS a
CROSS JOIN LATERAL debit_calls(
    a.identities, a.call_ids, a.customer_ids, a.user_ids, a.org_ids, a.organization_ids, a.amounts, a.ended, a.recorded,
    a.succeeded, a.providers, a.models, a.prompts, a.completions, a.power_levels, a.decided
) AS d
