"""The closed lists of reasons and outcomes that metrics have as labels, each written once.

A reason is a contract: dashboards, alarms and docs/errors.md name it. Two lists are elsewhere, beside their rules: why a
call is not billed, `streams/core/metering/decisions.py`; why usage is held, `streams/core/mapping/held_reasons.py`.
"""

from typing import Final

#: Reasons for which the ingress refuses an element, or a whole body.
NOT_JSON: Final = "not_json"  # does not parse: only length, hash and the error's place are kept
NOT_AN_OBJECT: Final = "not_an_object"  # a number, text or list where a call is expected
WRONG_TYPE: Final = "wrong_type"  # a field of the wrong type: the call is kept without it
BAD_NUMBER: Final = "bad_number"  # NaN, Infinity or out of range: cannot be stored as JSON
TOO_DEEP: Final = "too_deep"  # nested deeper than any JSON parser follows
TOO_COMPLEX: Final = "too_complex"  # damaged, and of more parts than the tolerant reader builds
TOO_LARGE: Final = "too_large"  # above a record's size even without prompts
TOO_MANY: Final = "too_many_elements"  # of a whole body
INGRESS_REASONS: Final = (
    *(NOT_JSON, NOT_AN_OBJECT, WRONG_TYPE, BAD_NUMBER),
    *(TOO_DEEP, TOO_COMPLEX, TOO_LARGE, TOO_MANY),
)

#: Reasons of the meter's rules for which the ingress, too, refuses an element that can be read (streams/core/metering).
INGRESS_RULE_REASONS: Final = (
    *("absurd_cost", "bad_cost", "bad_event", "bad_time", "bad_tokens", "contradicting_cost", "contradicting_customer"),
    *(
        "foreign_currency",
        "malformed",
        "negative_cost",
        "no_identity",
        "not_a_call",
        "unknown_shape",
        "unknown_version",
    ),
    "unreadable",
)

#: Reasons for which the server closed a connection: it sent nothing in time, or there were too many, in total or of one
#: address.
SILENT, FULL, FULL_OF_ONE = CONNECTION_CAUSES = ("silent", "full", "full_of_one")

#: The status of a receipt of usage that an operator has given up: there is no event of it.
WRITTEN_OFF: Final = "written_off"
#: Why a ledger is not opened: no release can have written what its changelog has.
UNREADABLE_LEDGER: Final = "unreadable_ledger"

#: Results of a look-up of a customer in Lago, where usage names the customer itself (docs/mapping.md).
CUSTOMER, NO_CUSTOMER, LOOKUP_FAILED = IDENTITY_OUTCOMES = ("customer", "unknown", "failed")

#: Outcomes of a webhook of Lago.
APPLIED, IGNORED, NOTED, UNKNOWN_TYPE, REPEATED_WEBHOOK = WEBHOOK_OUTCOMES = (
    *("applied", "ignored", "noted", "unknown", "repeated"),
)

#: Outcomes of an accepted event of Stripe (docs/credits.md). Waiting: the purchase is not known yet.
STRIPE_APPLIED, STRIPE_UNCHANGED, STRIPE_WAITING, STRIPE_NOTED, STRIPE_IGNORED, STRIPE_REPEATED = STRIPE_TAKEN = (
    *("applied", "unchanged", "waiting", "noted", "ignored", "repeated"),
)
#: Why a payment that Stripe announced gave no credits. Each is logged, counted and listed.
WRONG_AMOUNT, UNKNOWN_PURCHASE, OTHER_SESSION, WRONG_MODE, NO_PAYMENT, UNREADABLE_EVENT = STRIPE_REFUSED = (
    *("wrong_amount", "unknown_purchase", "other_session", "wrong_mode", "no_payment", "stripe_event_unreadable"),
)
#: Reasons why a webhook with Stripe as the stated sender was not read.
UNSIGNED, BAD_SIGNATURE = STRIPE_UNSIGNED = ("unsigned", "bad_signature")
STRIPE_OUTCOMES: Final = (*STRIPE_TAKEN, *STRIPE_REFUSED, *STRIPE_UNSIGNED)

#: Reasons for which rows cannot be written to Postgres now.
POSTGRES_AWAY, POSTGRES_SLOW, POSTGRES_FULL, POSTGRES_BUSY, POSTGRES_DENIED, POSTGRES_SCHEMA, POSTGRES_ERROR = (
    POSTGRES_FAILURES
) = (
    *("postgres_away", "postgres_slow", "postgres_full", "postgres_busy"),
    *("postgres_denied", "postgres_schema", "postgres_error"),
)

#: A request found no free connection to Postgres in time. The pools of an api process, each for one kind of request.
NO_CONNECTION: Final = "no_free_connection"
CREDITS_POOL, SLOW_POOL, MANAGEMENT_POOL, ACCESS_POOL = API_POOLS = ("credits", "slow", "management", "access")

#: Reasons for which the projector leaves a record out: it cannot be read, its call is in the log already, or Postgres
#: refuses its row.
UNREADABLE, REPEATED, ROW_REFUSED = SKIPPED = ("unreadable", "repeated", "row_refused")
#: Reasons why the account that a call names is not debited: only the client names the user; the reservation with the
#: call's id belongs to another account.
CLIENT_CHOSE_USER, OTHERS_RESERVATION = UNDEBITED = ("client_chose_user", "others_reservation")
#: How two billed calls may be one: a request under two ids, a job of two customers, a call that two ledgers counted.
BRIDGE, JOB, COPY = DOUBLED = ("bridge", "job", "copy")
