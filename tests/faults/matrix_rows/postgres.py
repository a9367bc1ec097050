"""Postgres is down, slow or crashed. It stores projections, which do not affect bills, and prepaid credits, which are money."""

from tests.faults.matrix_rows.row import GOES_ON, LOST, MONEY, SAYS_SO, TWICE, Row

ROWS = (
    Row(
        81,
        "Postgres is killed while rows are written",
        "kill -9 of the server, restarted later",
        (LOST, TWICE, GOES_ON),
        "rows wait in the topics and are written once",
        ("integration/test_projector.py::test_while_postgres_is_unavailable_rows_wait_and_none_is_lost",),
    ),
    Row(
        82,
        "Postgres crashes and loses its last commits",
        "commits are not awaited on disk; the server is killed",
        (LOST, TWICE),
        "rows and offset are lost together and are written again",
        ("integration/test_projection.py::test_a_crash_of_postgres_reverts_rows_and_offset_together",),
    ),
    Row(
        83,
        "projectors are killed and frozen; a frozen one continues when its partition has a new owner",
        "SIGKILL, and SIGSTOP for 24 s, under 400 calls/s",
        (LOST, TWICE, GOES_ON),
        "a projector with an old offset writes nothing; every row exists once",
        (
            "faults/test_projector_processes.py::test_killed_and_frozen_projectors_write_every_row_once",
            "integration/test_projection.py::test_two_owners_never_both_write",
            "integration/test_projection.py::test_a_frozen_writer_does_not_block_its_partition_forever",
        ),
    ),
    Row(
        84,
        "a projector is stopped while Postgres is down or does not answer",
        "the server is killed; a lock is not released",
        (GOES_ON,),
        "it stops within ten seconds",
        (
            "faults/test_projector_processes.py::test_a_projector_without_postgres_stops_within_ten_seconds",
            "faults/test_projector_processes.py::test_a_projector_whose_postgres_does_not_answer_stops_within_ten_seconds",
        ),
    ),
    Row(
        85,
        "a record that cannot become a row",
        "an impossible date; a value that does not fit into its column",
        (LOST, GOES_ON, SAYS_SO),
        "it is skipped and listed with its partition and offset; all other records become rows",
        ("integration/test_projector.py::test_a_record_that_cannot_become_a_row_is_skipped_alone_and_listed",),
    ),
    Row(
        122,
        "prepaid credits: projector and Postgres are killed",
        "kill -9 of the projector twice and of the server once, under 400 calls/s and further debits",
        (LOST, TWICE, MONEY, GOES_ON),
        "every call is debited once, also if the topic is read again from its beginning; a confirmed debit is on disk; entries sum to "
        "zero, balances are the sums of their entries",
        (
            "faults/test_credit_faults.py::test_accounts_add_up_after_kills_of_projectors_and_postgres",
            "integration/test_credit_debits.py::test_a_projection_from_the_beginning_changes_no_balance",
            "integration/test_credit_debits_match_bills.py::test_billed_and_debited_amounts_are_equal_to_the_smallest_unit",
            "integration/test_credit_corrections.py::test_a_call_and_its_event_that_are_projected_concurrently_agree",
            "integration/test_credit_races.py::test_1000_concurrent_authorisations_never_overspend",
        ),
    ),
    Row(
        131,
        "a large number of credits and reservations expire while calls are debited",
        "100,000 grants of 1000 accounts at once, one account locked all the time; a call is debited while the upkeep ends its "
        "reservation",
        (LOST, MONEY, GOES_ON),
        "one account per transaction; a locked account is handled in the next round, so no debit waits and there is no deadlock",
        (
            "integration/test_credit_upkeep.py::test_debits_go_on_while_100_000_grants_expire",
            "integration/test_credit_upkeep.py::test_calls_are_debited_while_the_upkeep_ends_their_reservations",
        ),
    ),
    Row(
        132,
        "prepaid credits: the api is killed",
        "kill -9 of the api eight times at random, under parallel purchases, reservations and debits; clients and Stripe repeat what "
        "was not answered, with the same key",
        (LOST, TWICE, MONEY),
        "each confirmed change exists exactly once; entries sum to zero, balances are the sums of their entries",
        ("faults/test_credit_api_faults.py::test_a_killed_api_has_done_what_it_answered_exactly_once",),
    ),
    Row(
        150,
        "months are pruned while much usage is released",
        "the receipt of an event is projected, and the event itself not yet, as behind a release that takes hours; a projector that was "
        "killed between two chunks",
        (LOST, MONEY),
        "the month stays until its calls are debited by their event",
        (
            "integration/test_credit_chunks.py::test_a_month_is_kept_while_an_event_is_delivered_but_not_projected",
            "integration/test_credit_chunks.py::test_a_month_is_kept_while_its_calls_are_being_corrected",
        ),
    ),
    Row(
        165,
        "outgoing webhooks: the sender is killed",
        "kill -9 while the receiver has the message but has not answered; four processes at once",
        (LOST, GOES_ON),
        "the message arrives again with the same id; every other message arrives once",
        (
            "integration/test_outgoing_webhooks.py::test_a_killed_sender_sends_again_with_the_same_id_and_leaves_nothing_out",
            "integration/test_outgoing_webhooks.py::test_two_processes_send_a_message_once",
        ),
    ),
    Row(
        166,
        "outgoing webhooks: an endpoint is down, or slow",
        "it answers 503, refuses connections, or takes each message after 14 seconds, while further messages are announced",
        (GOES_ON, SAYS_SO),
        "one attempt per round, with growing waits, and a turn of 15 seconds; the number of waiting messages is bounded, and a metric shows it; the other "
        "endpoints get their messages, and the projector does not wait",
        (
            "integration/test_outgoing_webhooks.py::test_messages_for_a_dead_endpoint_are_bounded_and_the_others_get_theirs",
            "integration/test_outgoing_webhooks.py::test_an_unavailable_endpoint_gets_one_attempt_a_round_and_everything_once_it_is_back",
            "integration/test_outgoing_webhooks.py::test_a_slow_endpoint_delays_the_others_by_one_turn",
        ),
    ),
    Row(
        180,
        "a table, a function or a right of the credits is missing",
        "renamed, dropped and revoked in a database in use, as after the restore of an older dump",
        (GOES_ON, SAYS_SO),
        "each refused query is counted, and an alarm is raised; calls are billed and debited in the meantime",
        ("integration/test_credit_upkeep.py::test_a_missing_table_function_or_right_is_counted_at_each_look",),
    ),
    Row(
        183,
        "all topics are lost while many equal held calls are released, and only Lago has the events",
        "equal calls in two minutes; a window that became held when it was sealed; an event that Lago does not show, because its "
        "organisation is closed; parts that cannot be divided between the events",
        (TWICE, MONEY, SAYS_SO),
        "the parts are assigned so that each event has its own, and are not billed again; otherwise a person decides first",
        (
            "integration/test_recovered_releases.py::test_equal_calls_of_two_windows_are_distributed_so_that_both_events_are_explained",
            "integration/test_recovered_releases.py::test_a_window_that_became_held_at_its_seal_is_found_in_the_event_that_it_joined",
            "integration/test_recovered_releases.py::test_parts_that_cannot_be_distributed_are_undecided",
            "integration/test_recovered_releases.py::test_parts_that_may_be_in_an_event_that_lago_does_not_show_are_undecided",
            "integration/test_recovered_releases.py::test_a_receipt_of_an_event_without_row_and_without_lagos_data_means_unknown_calls",
        ),
    ),
    Row(
        195,
        "all topics are lost, and another deployment bills each call as a separate event on the same metric",
        "events of both at Lago with `WINDOW_SECONDS=0`, whose ids name no deployment; an event of an older release; an event that was billed again",
        (TWICE, GOES_ON),
        "an event of a single call names its deployment: events of the other deployment do not count as unknown calls, and the backfill continues; an event that names "
        "no deployment counts as ours",
        (
            "integration/test_recovery.py::test_in_per_call_mode_events_of_another_deployment_are_not_taken_for_ours",
            "integration/test_recovery.py::test_a_call_billed_again_as_its_own_event_is_no_sign_of_another_deployment",
        ),
    ),
    Row(
        214,
        "the ledger of held usage is lost, and the usage gets a payer before it is counted again",
        "the enriched records of both counts, in one batch and in two, before and after the event that bills them; also for a prepaid org",
        (TWICE, MONEY, SAYS_SO),
        "the usage log names the part that bills the call, nothing is held in the old part, the payer's credits are debited, and `reconcile` does not call it counted twice",
        (
            "integration/test_recounted_calls.py::test_held_calls_that_a_rebuilt_ledger_counts_for_their_new_payer_are_explained_by_its_event",
            "integration/test_recounted_calls.py::test_a_copy_that_another_record_counts_is_named",
            "integration/test_credit_corrections.py::test_a_held_call_that_a_rebuilt_ledger_counts_for_its_payer_is_debited",
        ),
    ),
    Row(
        217,
        "a ledger is lost, and open calls are not billed by the settings of today",
        "a call on the user's own key, one above a lowered `MAX_USD_PER_CALL`, and one that cannot be read any more, counted and debited before; then a requeue of the rejected one; "
        "and a wrong rebuild, which counts a call of an event again",
        (LOST, TWICE, MONEY, SAYS_SO),
        "these calls are in no part, their debits are given back, the requeued one is billed and debited once, and `reconcile` names the event of a wrong rebuild",
        (
            "integration/test_rebuilt_tables.py::test_open_calls_that_the_settings_of_today_do_not_bill_are_in_no_part_and_not_debited",
            "integration/test_recounted_calls.py::test_a_call_that_a_rebuilt_ledger_rejects_is_in_no_part_and_is_counted_anew_once_it_comes_again",
            "integration/test_recounted_calls.py::test_a_call_of_an_event_that_is_counted_again_is_a_complaint",
        ),
    ),
    Row(
        201,
        "a ledger is lost at the end of a month, and a copy of a counted call has its start in the next month",
        "a read of a batch, a call without a time and another sender's event, on both sides of midnight; the usage log alone knows the first copy",
        (TWICE, MONEY),
        "the log finds the first copy in the month before, and the second is not billed",
        ("integration/test_backfill.py::test_a_copy_of_next_month_is_found_if_its_identity_has_no_start",),
    ),
)
