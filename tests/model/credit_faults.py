"""Small planted faults in the credit accounts: each changes one place of a database function."""

import re
from typing import NamedTuple


class Fault(NamedTuple):
    """`wrong` replaces each `right` (regular expression) in a function of the database and the functions that it is
    built from.
    """

    function: str
    right: str
    wrong: str

    def change(self, text: str) -> str:
        return re.sub(self.right, self.wrong, text)


_SOONEST_FIRST = r"i\.expires_at, i\.grant_id"

FAULTS = {
    "a_replay_debits_again": Fault(
        "debit_calls", r"'call:' \|\| encode\(c\.identity, 'hex'\)", "'call:' || gen_random_uuid()"
    ),
    "the_oldest_grant_is_used_first": Fault("book_credits", _SOONEST_FIRST, "i.grant_id"),
    "calls_use_the_oldest_grant_first": Fault("debit_calls", _SOONEST_FIRST, "i.grant_id"),
    "expired_credits_can_be_spent": Fault(
        "lock_credit_account", r"expire_account_credits\(v_held, NULL\) > 0", "v_held.balance < 0"
    ),
    "calls_spend_expired_credits": Fault("debit_calls", r"g\.expires_at <= \w+\(\)", "false"),
    "what_is_reserved_expires": Fault(
        "expire_account_credits", r", available_credits\(p_held, 0\)\)", ")"
    ),
    "reservations_do_not_count": Fault("available_credits", r"r\.account = p_held\.account", "r.account = ''"),
    "a_reservation_never_ends": Fault("available_credits", r"AND r\.expires_at > \w+\(\)", ""),
    "the_overdraft_has_no_bound": Fault(
        "available_credits", r"GREATEST\(p_overdraft - p_held\.overdraft, 0\)", "p_overdraft"
    ),
    "what_is_owed_is_always_repaid": Fault("book_credits", r"v_held\.overdraft_policy = 'repay'", "true"),
    "a_key_may_have_other_contents": Fault("credit_movement", r"AND l\.digest = p_digest", ""),
    "old_calls_are_debited": Fault(
        "debit_calls", r"prepaid_since <= LEAST\(c\.ended_at, c\.recorded_at\)", "prepaid_since <= c.recorded_at"
    ),
    "a_call_without_cost_keeps_its_reservation": Fault(
        "debit_calls", r"WHERE c\.reservation_id IS NOT NULL", "WHERE c.reservation_id IS NOT NULL AND c.amount > 0"
    ),
    "what_was_settled_is_debited_again": Fault("debit_calls", r"c\.paid IS NOT TRUE|NOT c\.settled\b", "true"),
}  # fmt: skip
