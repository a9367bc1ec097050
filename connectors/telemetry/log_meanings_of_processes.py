"""What each log event of processes means, and what to do: Kafka, partitions, HTTP, credentials and the log itself.

Events about usage, credits and Lago are in connectors/telemetry/log_meanings.py, which says what a text holds.
"""

from typing import Final

OF_PROCESSES: Final = {
    "app_left_running": "Faust's app did not stop within 4 seconds and is no longer waited for.",
    "background_task_ended": (
        "A task beside the work of the process ended by itself and begins again after `again_s`: "
        "[processes.md](runbooks/processes.md#meterbridgebackgroundtaskfails)."
    ),
    "background_task_interrupted": (
        "An error ended a task beside the work of the process, and it begins again after `again_s`: "
        "[processes.md](runbooks/processes.md#meterbridgebackgroundtaskfails)."
    ),
    "certificate_unreadable": (
        "The file of this certificate cannot be read, so its end is not known: "
        "[processes.md](runbooks/processes.md#meterbridgecertificateends)."
    ),
    "clock_ahead_of_kafka": (
        "Kafka refuses times of this machine's clock, so records are stored with an earlier time. Set the clock: "
        "[ingest.md](runbooks/ingest.md#meterbridgeclockwrong)."
    ),
    "clock_right_again": "Kafka accepts times of this machine's clock again.",
    "connections_full": (
        "A connection from this address met a limit: it was refused, or an idle one was closed for it. "
        "[ingest.md](runbooks/ingest.md#meterbridgeconnectionsfull) says which limit to raise."
    ),
    "coordinator_awaited": (
        "Kafka's transaction coordinator does not answer yet, and is asked until it does. If this lasts: "
        "[errors.md](errors.md), `coordinator_awaited`."
    ),
    "decryptions_unwritten": (
        "The audit line that counts the uses of provider keys could not be written; the counts are kept and written "
        "later. Look at Kafka."
    ),
    "fetch_gap": "A batch of fetched records is missing, so records are fetched again from `expected`.",
    "follower_interrupted": (
        "A table in memory lost its connection to Kafka, or failed, and tries again all the time. If it lasts: "
        "[metering.md](runbooks/metering.md#meterbridgetablesstale)."
    ),
    "follower_record_unreadable": (
        "A record could not be read and was passed over. Find out who else writes to the topic: "
        "[metering.md](runbooks/metering.md#meterbridgeunreadablerecords)."
    ),
    "ingest_recovered": "The ingress accepts records again, after `records_refused`.",
    "issuer_keys_unread": (
        "The keys of `OIDC_ISSUER` cannot be read; known keys stay valid for an hour. Look at the identity provider."
    ),
    "kafka_answered": "Kafka answers again, and the process goes on.",
    "kafka_producer_failed_for_good": (
        "A producer met an error after which it cannot continue. Restart the process; an ingress with a spool ends by "
        "itself."
    ),
    "key_use_unwritten": (
        "The times at which API keys were last used could not be stored, and are lost. The keys themselves work."
    ),
    "keys_unread": (
        "API keys could not be read from Postgres; known keys work for five minutes more, then requests get 503. Look "
        "at Postgres."
    ),
    "log_lines_suppressed": "Lines like this one came too often, and `count` of them were not logged.",
    "management_closed": (
        "No kind of credentials is configured, so the management API answers every request with 401. Set one: "
        "[access.md](access.md#credentials)."
    ),
    "metrics_not_answered": (
        "A request to the metrics port ended with an unexpected error. If it repeats, open an issue."
    ),
    "partition_halted": (
        "This partition stopped, and the others go on; it is tried again every minute. "
        "[metering.md](runbooks/metering.md#meterbridgepartitionhalted) has the command for each reason."
    ),
    "partition_reports_wait": (
        "A worker cannot report in `billing.deliveries` which partitions are halted, and tries again. If it lasts, a "
        "right may be missing: `meterbridge topics create --acls`."
    ),
    "partition_resumed": "A halted partition works again.",
    "partition_task_closed": (
        "A step failed while its partition was given away; nothing of it was stored, and the next owner does it."
    ),
    "partition_task_open_failed": "A partition could not be opened, and it is tried again. If it lasts, look at Kafka.",
    "partition_task_reopened": (
        "A step on a partition failed by an error that may pass; the partition is opened again, and the step repeated."
    ),
    "partitions_opened": "The partitions that this worker has opened have changed; it works on these.",
    "provider_key_use_unwritten": (
        "The uses of provider keys could not be stored in Postgres; they are kept and stored later. Look at Postgres."
    ),
    "provider_keys_unchecked": (
        "At the start Postgres did not answer whether `PROVIDER_KEYS_SECRET` fits the stored keys; each request checks "
        "it. Look at Postgres."
    ),
    "provider_keys_unread": "Provider keys could not be counted for the metrics; it is tried again. Look at Postgres.",
    "queues_not_watched": (
        "Kafka could not be asked about the queues, so their metrics keep their last values. [errors.md](errors.md) "
        "says what to do about the reason."
    ),
    "ready": "The process can serve requests.",
    "records_refused": (
        "Records could not be stored, and senders get 503. Bring Kafka back, then bill the lost calls by `meterbridge "
        "backfill`: [ingest.md](runbooks/ingest.md#meterbridgeingressrefuses)."
    ),
    "refusals_unwritten": (
        "Audit lines about refused attempts could not be written; they wait and are tried again. Look at Kafka."
    ),
    "request_failed": (
        "A request was answered with 500 because of an error of this product. Open an issue with this line."
    ),
    "request_malformed": "This address sent something that is not HTTP.",
    "serving": "The process listens on these ports.",
    "setting_unknown": (
        "This variable looks like a setting, but is none, so it has no effect. Correct or remove it: "
        "[configuration.md](configuration.md)."
    ),
    "spool_drained": "The spool is empty, and records go to Kafka directly again.",
    "spooling_began": (
        "Kafka does not answer, and the ingress keeps records on disk. Bring Kafka back before the spool is full: "
        "[ingest.md](runbooks/ingest.md#meterbridgespooling)."
    ),
    "stop_cut_short": (
        "The process did not stop within `seconds` and was ended; the next process does the rest. If it repeats, look "
        "at the lines before it."
    ),
    "stopped": "The process stopped after a signal.",
    "stopped_with_error": (
        "An error occurred after the stop signal; the next process does the rest. If it repeats, look at the lines "
        "before it."
    ),
    "topic_setting": (
        "A topic has a setting that loses nothing by itself, but should be different. `difference` says what to "
        "change; `meterbridge topics check` lists all."
    ),
    "traces_exported_again": "The receiver of traces accepts spans again.",
    "traces_failed": "A bug ended the traces of this process, and billing goes on. Open an issue with the traceback.",
    "traces_not_exported": (
        "The receiver of traces did not accept spans, and they are lost; billing goes on. Look at the receiver: "
        "[tracing.md](tracing.md)."
    ),
    "waiting_for_kafka": (
        "Kafka does not answer, and the process waits for it. Look at Kafka, or correct `KAFKA_BOOTSTRAP_SERVERS`."
    ),
    "webhook_not_taken": (
        "A receiver of outgoing webhooks did not accept a message, which is tried again for up to five days. If "
        "`is_disabled`: [processes.md](runbooks/processes.md#meterbridgewebhookendpointdisabled)."
    ),
    "webhooks_open_to_anybody": (
        "The ingress accepts usage without a credential, so anybody can send it. Set `WEBHOOK_TOKEN` and remove "
        "`ALLOW_UNAUTHENTICATED`."
    ),
    "worker_begins_again": "A role lost Kafka, and begins again when Kafka answers.",
    "worker_crashed": (
        "An error ended a role of the worker. Correct the setting or the topic that `error` names; if it names none "
        "and the error repeats, open an issue."
    ),
    "worker_ended": (
        "An error in the work on a partition ended the role. If it happens again after a restart, open an issue with "
        "the traceback."
    ),
    "worker_ended_badly": (
        "While everything stopped, the process of a role ended with an exit code that is not 0. If it repeats, look at "
        "the lines before it."
    ),
    "worker_killed": (
        "The process of a role did not stop within `seconds` and was killed; the next process does the rest. If it "
        "repeats, look at the lines before it."
    ),
    "worker_restarted": (
        "A role ended with this exit code, and is started again. If it repeats, look at the lines before it."
    ),
    "worker_started": "The process of a role runs; `partitions_opened` says later that it has work.",
    "worker_stopped": "A role stopped after a signal.",
    "wrong_credentials": (
        "Requests of this address were answered with 401. "
        "[ingest.md](runbooks/ingest.md#meterbridgesendersunauthorized) says how to find the sender."
    ),
}
