"""Billing rules that were wrong without a crash, and the tests that check them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Fields:
        rule: the owed amount, or the information that an operator must see.
        tests: `folder/file.py::test` below tests/.
    """

    rule: str
    tests: tuple[str, ...]


RULES = (
    Rule(
        "A batch, a video and a background response are billed once, even if they are read several times",
        (
            "e2e/test_polled_jobs.py::test_a_polled_job_is_billed_once_over_a_restart_and_a_week",
            "unit/streams/core/metering/test_jobs.py::test_only_the_first_positive_cost_is_billed",
            "unit/streams/core/metering/test_encrypted_job_ids.py::test_polls_of_one_response_are_one_job",
        ),
    ),
    Rule(
        "Media without a price is unpriced; own subscriptions and experiments are not billed; policies hold for failed calls",
        (
            "unit/streams/core/metering/test_decisions.py::test_a_call_without_a_cost_is_unpriced_if_its_kind_normally_costs_something",
            "unit/streams/core/metering/test_decisions.py::test_a_policy_applies_to_failed_calls_too",
        ),
    ),
    Rule(
        "A call with an implausible price waits for an operator, together with its amount",
        ("integration/test_implausible_costs.py::test_an_implausible_cost_is_billed_when_an_operator_accepts_it",),
    ),
    Rule(
        "A copy without a cost does not exclude a copy with a cost; a copy with a different cost is a duplicate and is listed",
        (
            "unit/streams/core/metering/test_priced_and_unpriced_copies.py::test_the_first_cost_of_each_call_is_what_is_billed",
            "integration/test_implausible_costs.py::test_a_copy_with_another_cost_is_listed_and_never_released",
        ),
    ),
    Rule(
        "Backfill and reconcile compare amounts, and recognise a call by its ids, independent of the form of its start time",
        (
            "integration/test_backfill_money.py::test_a_call_without_a_price_is_billed_once_when_litellm_has_one",
            "integration/test_backfill_money.py::test_a_table_without_the_call_id_bills_nothing_twice",
            "integration/test_backfill_money.py::test_a_row_with_both_ids_is_the_call_for_any_start",
        ),
    ),
    Rule(
        "A usage log that began late does not show whether an earlier call was billed",
        ("integration/test_log_completeness.py::test_calls_counted_before_the_log_started_are_not_billed_again",),
    ),
    Rule(
        "One request with two ids, and one job with two customers, are reported",
        (
            "integration/test_billed_twice.py::test_one_request_that_litellm_logged_under_two_ids_is_reported_with_both",
            "integration/test_billed_twice.py::test_one_job_that_two_customers_read_is_reported_with_both",
        ),
    ),
    Rule(
        "Usage of an invoiced billing period is on the next invoice, also if it waited for Lago past the period's end",
        (
            "contract/test_billed_in_time.py::test_usage_held_over_the_end_of_the_month_is_on_the_next_invoice",
            "contract/test_billed_in_time.py::test_an_outage_over_the_end_of_the_month_loses_nothing",
            "integration/test_events_past_period_end.py::test_usage_that_waited_over_the_end_of_the_month_is_billed_in_the_running_month",
        ),
    ),
    Rule(
        "The subscription that charges the metric pays; usage with no, several or unknown subscriptions is held; usage posted after an end is corrected",
        (
            "contract/test_billed_in_time.py::test_if_no_subscription_charges_the_metric_usage_is_held_until_one_does",
            "contract/test_billed_in_time.py::test_a_named_subscription_of_another_org_holds_its_usage",
            "integration/test_after_end.py::test_an_end_that_is_noticed_late_is_repaired_without_a_command",
            "integration/test_posted_after_last_invoice.py::test_usage_that_lago_accepted_after_its_last_invoice_is_billed_again_once",
        ),
    ),
    Rule(
        "Held usage is undecided: merging never changes the payer, and a corrected mapping applies to it",
        (
            "unit/streams/core/metering/test_held_undecided.py::test_merging_never_changes_who_pays",
            "unit/streams/core/metering/test_held_undecided.py::test_a_late_call_of_a_second_that_was_merged_and_written_off_is_held_again",
            "integration/test_mapping_corrections.py::test_a_mapping_to_an_org_that_lago_does_not_know_is_corrected_by_the_next_one",
        ),
    ),
    Rule(
        "Settings change worker by worker, and each call is billed once",
        (
            "unit/streams/core/metering/test_changed_settings.py::test_each_call_is_billed_once_for_any_settings_of_the_worker_that_takes_over",
        ),
    ),
    Rule(
        "Late usage is billed automatically; a replay beyond the dedupe retention bills only missing calls",
        (
            "integration/test_late_calls.py::test_a_spool_that_was_unreachable_for_three_days_is_billed_automatically",
            "integration/test_late_calls.py::test_a_topic_replayed_beyond_the_dedupe_retention_bills_only_missing_calls",
        ),
    ),
    Rule(
        "A wrong clock of an ingress blocks no record and moves no ledger's clock",
        (
            "faults/test_wrong_ingress_clock.py::test_an_ingress_whose_clock_is_ahead_stores_every_call_at_once_and_reports_it",
            "integration/test_record_times.py::test_a_record_with_a_clock_that_is_ahead_is_stored_once",
        ),
    ),
    Rule(
        "A halted ledger can continue, and no call is billed twice",
        ("integration/test_ledger_init.py::test_a_lost_ledger_continues_at_its_position_and_bills_no_repeat",),
    ),
    Rule(
        "Invalid details never prevent billing; cost and customer are found in every place; a compressed body is accepted completely or not at all",
        (
            "e2e/test_owed_cases.py::test_the_billed_amounts_equal_the_owed_ones",
            "integration/test_ingress_bad_input.py::test_a_compressed_body_is_accepted_completely_or_not_at_all",
        ),
    ),
    Rule(
        "Only Lago's own responses refuse an event; events that fail with the same error are held",
        (
            "unit/lago/test_answers_of_other_servers.py::test_hours_of_html_answers_make_no_event_a_dead_letter",
            "integration/test_sink.py::test_in_an_outage_no_event_is_given_up",
        ),
    ),
    Rule(
        "Stored context contains no prompt and no secret",
        ("integration/test_prompt_canary.py::test_the_marker_is_stored_nowhere",),
    ),
    Rule(
        "A damaged row of a table is refused with its line; an amount that a spreadsheet has changed is refused",
        ("unit/operations/test_csv_table.py::test_a_file_by_pythons_csv_writer_is_read_back_unchanged",),
    ),
    Rule(
        "When the readiness probe succeeds, the first mapping can be stored",
        ("faults/test_fresh_kafka.py::test_the_first_mapping_can_be_set_as_soon_as_the_server_is_ready",),
    ),
    Rule(
        "A customer that is created through the API pays for usage that names it",
        ("integration/test_map_by_identity.py::test_a_customer_that_is_saved_here_pays_for_usage_that_names_it",),
    ),
    Rule(
        "The payer is never guessed: events that an earlier owner posted elsewhere are looked up, a deletion is remembered, usage of a time whose mapping versions are "
        "no longer kept is held, and a subscription's id that now belongs to another customer bills only that customer's usage",
        (
            "integration/test_events_past_period_end.py::test_an_event_posted_to_the_next_subscription_is_not_posted_again_when_its_own_runs_again",
            "integration/test_map_by_identity.py::test_a_customer_that_was_deleted_long_ago_is_not_mapped_again",
            "unit/streams/core/mapping/test_calls_before_kept_versions.py::test_after_any_removal_the_kept_versions_give_the_same_answer_or_none",
            "integration/test_after_end.py::test_usage_that_another_customer_with_the_same_id_was_invoiced_for_is_billed_again_only_by_command",
        ),
    ),
    Rule(
        "A refused subscription leaves no new customer; the specification's functions need only Lago",
        ("contract/test_orgs_as_specified.py::test_a_refused_subscription_leaves_no_new_customer_behind",),
    ),
    Rule(
        "Pending events are one number, and a failing event delays others only for seconds",
        (
            "integration/test_event_queue.py::test_pending_is_the_same_number_in_every_place",
            "unit/streams/delivery/test_bad_event_delays.py::test_a_bad_event_at_the_front_of_a_partition_delays_the_next_ones_for_seconds",
        ),
    ),
    Rule(
        "Unbilled usage is visible, and usage of one customer by two callbacks raises an alarm",
        (
            "integration/test_explain_reconcile.py::test_unbilled_calls_are_shown_even_if_the_sum_is_right",
            "unit/streams/core/metering/test_duplicate_routes.py::test_two_callbacks_of_one_customer_are_reported_once_an_hour",
        ),
    ),
    Rule(
        "The cost of a failed attempt is billed once, although LiteLLM reports it again with the success that carries it",
        (
            "unit/streams/core/metering/test_failed_attempts.py::test_a_cut_stream_that_a_fallback_continued_is_billed_once",
            "unit/streams/core/metering/test_failed_attempts.py::test_two_cuts_of_one_call_are_billed_once_in_any_order",
            "unit/ingest/test_carried_costs.py::test_the_cost_of_failed_attempts_is_read_from_the_breakdown",
        ),
    ),
    Rule(
        "The user and the key of LiteLLM's master key are not used as customers",
        ("unit/streams/core/metering/test_customer_key.py::test_the_user_of_the_master_key_is_no_customer",),
    ),
    Rule(
        "A customer's question about an amount is answered without SQL",
        ("integration/test_explain_reconcile.py::test_a_customers_question_is_answered_without_sql",),
    ),
    Rule(
        "Analytics, FOCUS and explain show usage for the org that its event bills, and written-off usage with 0",
        (
            "integration/test_analytics.py::test_usage_belongs_to_the_org_that_its_event_bills",
            "integration/test_analytics.py::test_written_off_usage_is_billed_at_0",
            "integration/test_explained_org.py::test_usage_counted_for_another_org_is_explained_to_the_billed_org",
        ),
    ),
    Rule(
        "On random histories the sandbox invoices the amounts of an independent model, and planted faults are found",
        (
            "model/test_owed.py::test_the_billed_amounts_equal_the_models",
            "model/test_planted_faults.py::test_a_planted_fault_is_found",
        ),
    ),
)
