"""Says when a metric shows a problem, in the order of docs/metrics.md: a chapter, the metric's name, the sentence."""

from typing import Final

_NEVER: Final = "No alarm: for a dashboard."

CHAPTERS: Final = {
    "What comes in": {
        "webhook_requests_total": "401: a sender has a wrong token, and LiteLLM drops what it sent. 413: raise `MAX_BODY_BYTES`. 503: Kafka takes "
        "nothing, or a sender is above `WEBHOOK_RATE_LIMIT`.",
        "meterbridge_ingress_elements_total": "Any other outcome than `accepted` and `ignored` rises: the reason is in [errors.md](errors.md).",
        "meterbridge_ingress_request_duration_seconds": "The 99th percentile is above 5 s: Kafka is slow.",
        "meterbridge_ingress_body_bytes_inflight": "It stays above some hundred MB: senders are slow, or too many.",
        "meterbridge_wrong_credentials_total": "It rises: an old token is in use, or somebody guesses.",
        "meterbridge_connections_closed_total": "`full` or `full_of_one` rises: too many connections, in all or of one address.",
        "meterbridge_spool_records": "Above 0 for minutes: Kafka is away.",
        "meterbridge_spool_bytes": "It comes near `SPOOL_MAX_BYTES`: then senders get 503.",
        "meterbridge_spool_max_bytes": _NEVER,
        "meterbridge_spool_oldest_seconds": "It grows while Kafka is well: the spool does not drain.",
        "meterbridge_spooled_total": "It rises: Kafka was away for some time. No usage is lost.",
        "meterbridge_spool_drained_total": _NEVER,
        "meterbridge_records_restamped_total": "It rises: the clock of an ingress is wrong.",
    },
    "What is counted": {
        "meterbridge_calls_total": "`unpriced` rises: LiteLLM has no price for a model, and its calls are not billed. `rejected` rises: `meterbridge dlq list`.",
        "meterbridge_doubtful_calls_total": "It rises: look at the reason in [litellm.md](litellm.md).",
        "meterbridge_doubtful_cost_usd_total": "The same, in dollars.",
        "meterbridge_unknown_call_type_calls_total": "It rises: LiteLLM is newer than this release. The calls are billed as inference.",
        "meterbridge_two_routes_total": "It rises: two callbacks report the same calls, and each call is billed twice.",
        "meterbridge_doubled_calls_total": "It rises: a call was billed twice. `meterbridge reconcile` names it.",
        "meterbridge_dedupe_identities": "It grows without end: memory of the meter.",
        "meterbridge_open_windows": "Above 50 000 in a partition: `WINDOW_GROUP_BY` names a field that clients choose.",
        "meterbridge_ledgers_open": "The sum over all workers is not `KAFKA_PARTITIONS` for minutes: no worker has the rest.",
        "meterbridge_ledger_imbalance": "**Not 0: stop the worker and keep all topics** ([errors.md](errors.md)).",
        "meterbridge_partition_halted": "**1: this partition bills nothing** until you act.",
        "meterbridge_fetch_gaps_total": "It rises all the time: look at the brokers. No usage is lost.",
        "meterbridge_waiting_records": "It grows for many minutes: the role that reads the topic is slower than what comes, or does not run.",
        "meterbridge_waiting_oldest_seconds": "Ten minutes for `raw`, a quarter of an hour for `events`. In `retry` events wait on purpose, up to an hour.",
        "meterbridge_waiting_retention_ratio": "**Above 0.5: usage is deleted** once as much time has passed again.",
        "event_processing_duration_seconds": "The 99th percentile is above some seconds: Kafka's transactions are slow.",
        "meterbridge_late_calls_total": "`waiting` rises: `meterbridge dlq list`. `failed` rises: `late_calls_wait` with the reason.",
        "meterbridge_background_task_interruptions_total": "It rises all the time: an error of ours; the log has the traceback. What the task exports or does is old.",
        "meterbridge_unreadable_records_total": "It rises: something else writes to our topics.",
    },
    "What is held": {
        "meterbridge_held_windows": "It grows: customers without a mapping or a subscription.",
        "meterbridge_held_calls": "The same by reason, in calls.",
        "meterbridge_held_cost_usd": "The same by reason, in dollars: this is what you have not billed.",
        "meterbridge_held_customers": "It jumps: somebody sends invented names.",
        "meterbridge_newly_held_customers_total": "It rises: the log line `usage_held` names the customer.",
        "meterbridge_held_oldest_seconds": "Above a day: usage may leave its billing period before it is billed.",
        "meterbridge_held_windows_on_disk": "Above 0: more than `HELD_IN_MEMORY` windows are held.",
        "meterbridge_held_over_bound": "1: [a flood of unknown names](stuck-usage.md#a-flood-of-unknown-names).",
        "meterbridge_ledger_held_customers": "It shows which partition holds most.",
        "meterbridge_ledger_held_windows": "It shows which partition holds most.",
        "meterbridge_held_straddled_total": "It rises often: learn of subscriptions sooner, by Lago's webhooks.",
        "meterbridge_identities_asked_total": "`failed` rises: Lago does not answer.",
    },
    "What goes to Lago": {
        "meterbridge_events_emitted_total": "It stands still while calls come: see what is held.",
        "meterbridge_event_transitions_total": "`failed` rises: dead letters. `completed` stands still: the sink or Lago.",
        "pending_events_total": "It grows for many minutes: Lago is slower than the usage.",
        "failed_events_total": "It rises: `meterbridge dlq list`; the reason is in [errors.md](errors.md).",
        "lago_api_requests_total": "401 or 403: the key. 422: the event. 429: the rate limit. 0 and 5xx: Lago is away.",
        "meterbridge_lago_request_duration_seconds": "The 99th percentile is near `LAGO_TIMEOUT`.",
        "meterbridge_lago_breaker_state": "2 for minutes: nothing is posted. It goes on by itself when Lago answers.",
        "meterbridge_lago_organization_breaker_state": "2 for minutes: nothing is posted to this organisation "
        "([lago-organizations.md](lago-organizations.md)).",
        "meterbridge_lago_organization_requests_total": "401 or 403: the organisation's key.",
        "meterbridge_lago_organization_waiting_seconds": "It grows: the organisation takes no events.",
        "meterbridge_lago_idempotent": "0: Lago runs on ClickHouse without deduplication ([the limit](reliability.md)).",
        "meterbridge_lago_too_old": "1: upgrade Lago to 1.39 or later.",
        "meterbridge_lago_rate_limit": _NEVER,
        "meterbridge_shifted_events_total": "It rises at other times than the start of a month: usage waits too long.",
        "meterbridge_after_end_events": "Above 0 for an hour: `meterbridge lago rebill --dry-run`.",
        "meterbridge_after_end_usd": "The same, in dollars.",
        "meterbridge_rebilled_events_total": "`failed` rises: `rebilling_waits` with the reason.",
    },
    "The canary": {
        "meterbridge_canary_failing": "1 for minutes: the runbook of [the canary](runbooks/canary.md) has what to do for each reason.",
        "meterbridge_canary_calls_total": "`wrong_amount`, `billed_twice` or `lost` rises: customers may be billed wrongly as well.",
        "meterbridge_canary_billed_age_seconds": "Above the interval, the window, the grace and two minutes: the last calls were not billed.",
        "meterbridge_canary_billed_seconds": "It grows: delivery becomes slow. A window and its grace are part of it.",
        "meterbridge_canary_posted_total": _NEVER,
    },
    "Who pays": {
        "active_customers_total": "It falls: somebody ends mappings.",
        "meterbridge_table_staleness_seconds": "Above 30: this process does not learn of changed mappings or subscriptions.",
        "meterbridge_lago_webhooks_total": "An outcome other than `applied`, `ignored`, `noted`, `unknown` and `repeated` rises: Lago sends it again.",
        "meterbridge_providers": "`down` above 0: `GET /api/v1/providers/health` names the provider and the model.",
        "meterbridge_usage_days_failed": "Above 0: the table `usage_days_failed` names the days, and the SQLSTATE of the latest attempt.",
        "meterbridge_provider_keys": "`due` rises: remind the users. `unknown_secret` above 0: `PROVIDER_KEYS_SECRET` is wrong. `old_secret` above 0: "
        "`meterbridge provider-keys rotate-secret`.",
        "meterbridge_provider_keys_resolved_total": "`unreadable` rises: a stored key was changed, or `PROVIDER_KEYS_SECRET` is wrong.",
    },
    "Credits": {
        "meterbridge_credits_overdraft_usd": "It grows: prepaid accounts use more than they have "
        "([credits.md](credits.md#overdraft)). Every projector exports the same number.",
        "meterbridge_credits_undebited_calls_total": "It rises: clients name other users or use their call ids, or `CREDITS_USER_KINDS` lacks a kind "
        "that you trust. `SELECT * FROM undebited_calls` lists the calls that no account paid for.",
        "meterbridge_credit_reservations_open": "It grows without end: credits are reserved for calls that are never recorded.",
        "meterbridge_credits_imbalance_usd": "**Not 0: stop all that moves credits**, keep the tables, and run `meterbridge credits check`.",
        "meterbridge_credit_upkeep_failures_total": "It rises: `credit_upkeep_waits` with the reason.",
        "meterbridge_stripe_events_total": "A reason of [errors-api.md](errors-api.md#a-payment-that-gave-no-credits) rises: a customer paid and got nothing. "
        "`bad_signature` rises: a wrong secret, or somebody guesses.",
    },
    "Postgres": {
        "meterbridge_projector_lag_seconds": "Above ten minutes: Postgres or the role `project` is away. Billing goes on.",
        "meterbridge_projected_rows_total": _NEVER,
        "meterbridge_projection_skipped_total": "`unreadable` or `row_refused` rises: `meterbridge db unprojected`.",
        "meterbridge_outgoing_webhooks_total": "`failed` rises and `sent` does not: the log names the host and the status. `error` rises: the log has it.",
        "meterbridge_outgoing_webhooks_waiting": "It grows: an endpoint takes nothing. 10 000 for each endpoint wait at most.",
        "meterbridge_outgoing_webhook_endpoints_disabled": "Above 0: repair the receiver, then `meterbridge webhooks test`.",
        "meterbridge_api_postgres_refused_total": "`credits` rises: raise `API_POSTGRES_CONNECTIONS`, or look for locks. `slow` rises: analytics "
        "and lists of transactions take long.",
        "meterbridge_postgres_failures_total": "It rises: the reason is in [errors.md](errors.md).",
    },
    "The process": {
        "meterbridge_role": "The largest value over all processes is 0 for a role that you run: no process does its work.",
        "meterbridge_certificate_expires_seconds": "Below 30 days: replace the file, and restart the processes: the metric follows the file at once, connections go on with what was "
        "read at the start.",
        "meterbridge_audit_chain_broken": "**1: somebody changed the audit log.** `meterbridge audit verify` names the line.",
        "meterbridge_trace_spans_total": "`failed` or `dropped` rises: the receiver of the traces is down or slow ([tracing.md](tracing.md)). Billing "
        "goes on.",
        "meterbridge_build_info": "Two versions for longer than an upgrade takes.",
    },
}
