"""Money without a crash: rules that were wrong although nothing broke, and the tests that hold them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Fields:
        rule: what is owed, or what an operator must see.
        tests: `folder/file.py::test` below tests/.
    """

    rule: str
    tests: tuple[str, ...]


RULES = (
    Rule(
        "A batch, a video and a background response are billed once, however often they are read",
        (
            "e2e/test_polled_jobs.py::test_a_polled_job_is_billed_once_over_a_restart_and_a_week",
            "unit/streams/core/metering/test_jobs.py::test_the_first_positive_cost_bills_and_nothing_else",
            "unit/streams/core/metering/test_sealed_jobs.py::test_polls_of_one_response_are_one_job",
        ),
    ),
    Rule(
        "Media without a price is unpriced; own subscriptions and experiments are not billed; policies hold for failed calls",
        (
            "unit/streams/core/metering/test_decisions.py::test_a_call_without_a_cost_is_unpriced_if_it_was_worth_one",
            "unit/streams/core/metering/test_decisions.py::test_a_policy_holds_for_failed_calls_too",
        ),
    ),
    Rule(
        "A price that no model has waits for an operator, with its money",
        ("integration/test_kept_aside.py::test_a_price_that_no_model_has_is_billed_when_somebody_says_so",),
    ),
    Rule(
        "A copy without a cost does not shut out the one with a cost; another cost is a duplicate and is listed",
        (
            "unit/streams/core/metering/test_two_kinds_of_known.py::test_the_first_cost_of_each_call_is_what_is_billed",
            "integration/test_kept_aside.py::test_a_copy_with_another_cost_is_listed_and_never_released",
        ),
    ),
    Rule(
        "Backfill and reconcile compare money, and know a call by its ids however its start is told",
        (
            "integration/test_backfill_money.py::test_a_call_without_a_price_is_billed_once_when_litellm_has_one",
            "integration/test_backfill_money.py::test_a_table_without_the_call_id_doubles_nothing",
            "integration/test_backfill_money.py::test_a_row_with_both_ids_is_the_call_whatever_its_start",
        ),
    ),
    Rule(
        "A usage log that began late vouches for nothing before",
        (
            "integration/test_log_completeness.py::test_calls_that_were_counted_before_the_log_began_are_not_billed_again",
        ),
    ),
    Rule(
        "One request under two ids, and one job under two customers, are named",
        (
            "integration/test_billed_twice.py::test_one_request_that_litellm_logged_under_two_ids_is_named_with_both",
            "integration/test_billed_twice.py::test_one_job_that_two_customers_asked_for_names_both",
        ),
    ),
    Rule(
        "Usage of an invoiced billing period is on the next invoice, also what waited for Lago over the border",
        (
            "contract/test_billed_in_time.py::test_usage_that_was_held_over_the_months_end_is_on_the_next_invoice",
            "contract/test_billed_in_time.py::test_an_outage_over_the_months_end_costs_nothing",
            "integration/test_over_the_border.py::test_what_waited_over_the_months_end_is_billed_in_the_running_month",
        ),
    ),
    Rule(
        "The subscription that charges the metric pays; none, several and unknown ones hold; what an end overtook is put right",
        (
            "contract/test_billed_in_time.py::test_where_none_charges_it_usage_is_held_until_one_does",
            "contract/test_billed_in_time.py::test_a_named_subscription_that_is_not_the_orgs_holds_its_usage",
            "integration/test_after_end.py::test_an_end_that_is_learnt_late_is_put_right_without_a_command",
            "integration/test_overtaken.py::test_what_lago_took_after_its_last_invoice_is_billed_again_once",
        ),
    ),
    Rule(
        "Held usage is undecided: merging never changes who pays, and a corrected mapping takes it",
        (
            "unit/streams/core/metering/test_held_undecided.py::test_merging_never_changes_who_pays",
            "unit/streams/core/metering/test_held_undecided.py::test_a_late_call_of_a_second_that_was_merged_and_written_off_is_held_anew",
            "integration/test_mapping_corrections.py::test_a_mapping_to_an_org_that_lago_does_not_know_is_corrected_by_the_next_one",
        ),
    ),
    Rule(
        "Settings change worker by worker, and each call is billed once",
        (
            "unit/streams/core/metering/test_changed_settings.py::test_the_one_who_takes_over_with_whatever_settings_each_call_is_billed_once",
        ),
    ),
    Rule(
        "Late usage comes home without hands; a replay beyond the dedupe retention bills what is missing alone",
        (
            "integration/test_late_calls.py::test_a_spool_that_was_away_for_three_days_is_billed_without_hands",
            "integration/test_late_calls.py::test_a_topic_that_is_replayed_beyond_the_horizon_bills_what_is_missing_alone",
        ),
    ),
    Rule(
        "A wrong clock of an ingress blocks no record and moves no ledger's clock",
        (
            "faults/test_wrong_ingress_clock.py::test_an_ingress_whose_clock_is_ahead_stores_every_call_at_once_and_says_so",
            "integration/test_record_times.py::test_one_record_of_a_clock_that_is_ahead_has_its_place_and_is_there_once",
        ),
    ),
    Rule(
        "A ledger that halted has a way on",
        ("integration/test_ledger_init.py::test_a_lost_ledger_goes_on_where_it_stood_and_bills_no_repeat",),
    ),
    Rule(
        "Details never veto money; money and customer count wherever they stand; a packed body is taken whole or not at all",
        (
            "e2e/test_owed_cases.py::test_what_is_billed_is_what_is_owed",
            "integration/test_ingress_bad_input.py::test_a_packed_body_is_taken_whole_or_not_at_all",
        ),
    ),
    Rule(
        "Only Lago's own answers refuse an event; events that die alike are held",
        (
            "unit/lago/test_not_lago.py::test_a_page_of_html_for_hours_gives_no_event_up",
            "integration/test_sink.py::test_an_outage_gives_no_event_up",
        ),
    ),
    Rule(
        "What is kept for later questions holds no prompt and no secret",
        ("integration/test_prompt_canary.py::test_the_canary_is_nowhere",),
    ),
    Rule(
        "A damaged table is refused by line; what a spreadsheet changed is no money",
        ("unit/operations/test_csv_table.py::test_whatever_a_writer_of_csv_wrote_is_read_back",),
    ),
    Rule(
        "The one who reads that it is ready can store the first mapping",
        ("faults/test_fresh_kafka.py::test_the_one_who_is_told_that_it_is_ready_can_set_the_first_mapping_at_once",),
    ),
    Rule(
        "A customer that is made here pays for usage that names it",
        ("integration/test_map_by_identity.py::test_a_customer_that_is_saved_here_pays_for_usage_that_names_it",),
    ),
    Rule(
        "Who pays is never a guess: what an earlier owner posted elsewhere is looked up, a deletion is remembered, a past that is "
        "kept no more is held, and a subscription's id that another customer has now bills that one's usage alone",
        (
            "integration/test_over_the_border.py::test_what_was_posted_to_the_next_subscription_is_not_posted_again_when_its_own_runs_after_all",
            "integration/test_map_by_identity.py::test_who_was_deleted_long_ago_is_not_mapped_anew",
            "unit/streams/core/mapping/test_known_past.py::test_whatever_was_dropped_what_is_left_says_the_same_or_nothing",
            "integration/test_after_end.py::test_what_another_customer_with_the_same_id_is_invoiced_for_is_billed_again_only_by_a_persons_word",
        ),
    ),
    Rule(
        "A refused subscription leaves no new customer; the specification's functions need Lago alone",
        ("contract/test_orgs_as_specified.py::test_a_refused_subscription_leaves_no_new_customer_behind",),
    ),
    Rule(
        "Pending is one number, and a sick event holds others for seconds",
        (
            "integration/test_event_queue.py::test_pending_is_one_number_wherever_it_is_asked_for",
            "unit/streams/delivery/test_sick_heads.py::test_a_sick_event_at_the_head_of_a_lane_holds_what_comes_behind_it_for_seconds",
        ),
    ),
    Rule(
        "What is not billed is seen, and one customer by two callbacks is an alarm",
        (
            "integration/test_explain_reconcile.py::test_what_is_not_billed_is_not_hidden_behind_a_sum_that_adds_up",
            "unit/streams/core/metering/test_duplicate_routes.py::test_two_callbacks_of_one_customer_are_told_once_an_hour",
        ),
    ),
    Rule(
        "The user and the key of LiteLLM's master key name no customer",
        ("unit/streams/core/metering/test_customer_key.py::test_the_one_who_has_the_master_key_is_no_one",),
    ),
    Rule(
        "A customer's question about an amount is answered without SQL",
        ("integration/test_explain_reconcile.py::test_a_customer_s_question_is_answered_without_sql",),
    ),
    Rule(
        "Analytics, FOCUS and explain show usage under the org that its event bills, and what was written off at nothing",
        (
            "integration/test_analytics.py::test_usage_is_the_orgs_that_its_event_bills",
            "integration/test_analytics.py::test_what_was_written_off_is_billed_at_nothing",
            "integration/test_explained_org.py::test_usage_that_was_counted_for_another_org_is_explained_to_the_one_that_is_billed",
        ),
    ),
    Rule(
        "On random histories the sandbox invoices what an independent model says is owed, and planted faults are found",
        (
            "model/test_owed.py::test_what_is_billed_is_what_is_owed",
            "model/test_planted_faults.py::test_a_planted_fault_is_found",
        ),
    ),
)
