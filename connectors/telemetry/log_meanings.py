"""What each log event means, and what to do, for docs/logs.md: one or two sentences with at most 40 words.

Only connectors/telemetry/logs_page.py imports this, so that no process keeps the texts in memory.
"""

from typing import Final

from connectors.telemetry.log_meanings_of_processes import OF_PROCESSES

_OF_BILLING: Final = {
    "billed_last_minute": (
        "The sums of the last minute in this process: [operations.md](operations.md#one-line-a-minute)."
    ),
    "breaker_closed": "Lago answers again, and events are posted.",
    "breaker_opened": (
        "Posts to Lago fail and are paused; events wait, and are posted later. [errors.md](errors.md) says what to do "
        "about the reason."
    ),
    "call_type_unknown": (
        "This version does not know the type of these calls, which are billed as inference. If that is wrong for the "
        "type, upgrade: [metering.md](runbooks/metering.md#meterbridgeunknowncalltype)."
    ),
    "calls_billed_twice": (
        "Billed calls look like one call that was billed twice. `meterbridge reconcile` names them; correct it in Lago."
    ),
    "canary_not_found": (
        "A call of the canary was not billed, and its subscription was not found either. Look at Lago: "
        "[canary.md](canary.md)."
    ),
    "canary_result": (
        "A call of the canary was billed (level info), or was not billed, not exactly, or late (warning): "
        "[canary.md](canary.md)."
    ),
    "canary_not_seen": (
        "Lago did not answer whether it has the canary's events; it is asked again. If it lasts, look at Lago."
    ),
    "canary_started": "The canary has found its subscription and begins to post calls to `url`.",
    "canary_waits_for_lago": (
        "Lago did not answer when the canary asked for its subscription; it is asked again. If it lasts, look at Lago."
    ),
    "changelog_stays_in_memory": (
        "The disk accepts no windows of the changelog, so they stay in memory. Make space in the folder that "
        "`SQLITE_TMPDIR` or `TMPDIR` names."
    ),
    "credit_upkeep_waits": (
        "Credits and reservations whose time is over could not be ended; it is tried again. "
        "[credits.md](runbooks/credits.md#meterbridgecreditupkeepfails) says what to do about the reason."
    ),
    "credits_do_not_balance": (
        "Balances, grants and entries of credits differ by this amount. `meterbridge credits check` names the places: "
        "[credits.md](runbooks/credits.md#meterbridgecreditsimbalance)."
    ),
    "credits_ended": "Credits or reservations whose time was over were ended.",
    "customers_not_forgotten": (
        "The records of customers whose mapping was deleted long ago could not be removed; it is tried again. "
        "[errors.md](errors.md) says what to do about the reason."
    ),
    "event_store_assumed": (
        "Lago does not tell this API key where it stores events, so `store` is assumed. Check that this is right."
    ),
    "event_store_unknown": (
        "Lago does not say where it stores events; until then an event in doubt is looked up before it is sent again. "
        "If it lasts, look at Lago."
    ),
    "event_store_without_deduplication": (
        "Lago stores events in ClickHouse, and an event that is posted again may count twice: "
        "[doctor.md](doctor.md#lago), `clickhouse_without_dedup`."
    ),
    "events_not_billed": (
        "Lago accepted events and reports that it does not bill them. Do what "
        "[errors.md](errors.md#events-that-lago-took-and-does-not-bill) says for the reason."
    ),
    "former_user_not_noted": (
        "Lago's metadata of the org has no room for the id of a migrated user. Make room there, then repeat the "
        "migration."
    ),
    "held_usage_on_disk": (
        "A ledger holds more usage that waits than fits into memory, and moves it to disk. `meterbridge held list` "
        "names the customers: [stuck-usage.md](stuck-usage.md#a-flood-of-unknown-names)."
    ),
    "held_usage_over_bound": (
        "A ledger keeps more held usage in memory than `HELD_IN_MEMORY`. `meterbridge held list` names the customers: "
        "[held.md](runbooks/held.md#meterbridgeheldoverbound)."
    ),
    "held_usage_stays_in_memory": (
        "The disk accepts no held usage, so it stays in memory. Make space in the folder that `SQLITE_TMPDIR` or "
        "`TMPDIR` names."
    ),
    "identities_not_asked": (
        "Customers without a mapping could not be looked up in Lago and mapped; the next round continues. "
        "[errors.md](errors.md) says what to do about the reason."
    ),
    "lago_key_not_set": (
        "This role posts to Lago and has no API key, so events wait. Set `LAGO_API_KEY` and restart it."
    ),
    "lago_key_replaced": "The file with Lago's API key has a new key, which is used from now on.",
    "lago_key_unreadable": "The file with Lago's API key cannot be read, and the last key is used. Repair the file.",
    "lago_too_old": (
        "This version of Lago may store a part of a batch that it refuses. Upgrade Lago: "
        "[delivery.md](runbooks/delivery.md#meterbridgelagotooold)."
    ),
    "lago_webhook_applied": "A webhook of Lago named an org, whose subscriptions were then read from Lago.",
    "lago_webhook_noted": (
        "Lago sent a webhook that changes nothing here. A warning names trouble, such as a payment that failed: look at "
        "that object at Lago."
    ),
    "lago_webhook_unknown": "Lago sent a webhook of a type that nothing here needs.",
    "late_calls_released": (
        "Late calls were checked against the usage log: `released` are billed now, `known` were billed before, "
        "`waiting` are still dead letters, by reason."
    ),
    "late_calls_wait": (
        "Late calls cannot be checked now; it is tried again. "
        "[metering.md](runbooks/metering.md#meterbridgelatecallswait) says what to do about the reason."
    ),
    "limit_not_counted": (
        "This usage limit stops nothing, because the org's plan charges nothing for its metric. Change the limit or "
        "the plan."
    ),
    "mapped_by_identity": (
        "Lago has a customer with exactly this id, so usage under the id is mapped to it: "
        "[mapping.md](mapping.md#an-id-that-pays-for-itself)."
    ),
    "mapping_stored_late": (
        "A mapping was stored after the moment from which it holds; calls in between may be billed to the former "
        "payer. `meterbridge explain` shows who paid."
    ),
    "names_left_out": (
        "So many different names were logged that further ones are left out until the process is restarted."
    ),
    "org_billing_failed": (
        "A function of the library failed, and its caller got the error. [errors.md](errors.md) says what to do about "
        "the reason."
    ),
    "org_customer_changed": "The name, e-mail address or metadata of an org was saved in Lago.",
    "org_customer_created": "A customer for an org was created in Lago.",
    "org_customer_exists": "The customer of this org existed already, and was not changed.",
    "org_customer_left": (
        "Lago refused a new org's subscription, and its new customer could not be deleted. Subscribe the customer, or "
        "delete it in Lago."
    ),
    "org_migration_failed": (
        "A user could not be migrated to the org. Remove the cause, then repeat `meterbridge migrate-orgs`: "
        "[orgs.md](orgs.md#users-become-orgs-meterbridge-migrate-orgs)."
    ),
    "org_not_looked_at": (
        "Lago did not answer about this org, so usage after an end is not looked for; it is tried again every minute. "
        "[errors.md](errors.md) says what to do about the reason."
    ),
    "org_not_polled": (
        "The subscriptions of this org could not be read again; the next poll tries it. [errors.md](errors.md) says "
        "what to do about the reason."
    ),
    "org_not_subscribed": (
        "`AUTO_SUBSCRIBE` could not subscribe an org, whose usage is held; it is tried again. Remove the cause: "
        "[mapping.md](mapping.md#subscribing-by-itself-auto_subscribe)."
    ),
    "org_subscribed": "An org was subscribed to the plan, or its plan was changed.",
    "org_subscription_ended": "A subscription of an org was ended, or cancelled before its begin.",
    "organization_lane_halted": (
        "Delivery to a further Lago organisation stopped on this partition; it is tried again every minute. "
        "[errors.md](errors.md) says what to do about the reason."
    ),
    "organization_lane_reopened": (
        "Delivery to a further Lago organisation was interrupted on this partition, and begins again. If it lasts, "
        "look at Kafka."
    ),
    "orgs_not_polled": (
        "The subscriptions of the orgs could not be read from Lago; the next poll tries it. [errors.md](errors.md) "
        "says what to do about the reason."
    ),
    "orgs_polled": "A poll found changes in Lago that no webhook had announced.",
    "outgoing_webhooks_wait": (
        "Outgoing webhooks cannot be sent now; it is tried again. [errors.md](errors.md) says what to do about the "
        "reason."
    ),
    "projection_held": (
        "Postgres does not take rows now; it is tried again, and billing goes on. Look at Postgres: "
        "[processes.md](runbooks/processes.md#meterbridgeprojectorbehind)."
    ),
    "projection_resumed": "Postgres takes rows again.",
    "provider_health_waits": (
        "The state of the providers cannot be judged now; it is tried again. [errors.md](errors.md) says what to do "
        "about the reason."
    ),
    "rebilling_waits": (
        "Usage after an end cannot be looked for or billed now; it is tried again. [errors.md](errors.md) says what to "
        "do about the reason."
    ),
    "record_not_projected": (
        "A record became no row in Postgres; billing is right. `meterbridge db unprojected` lists all: "
        "[processes.md](runbooks/processes.md#meterbridgerowsleftout)."
    ),
    "stripe_payment_refused": (
        "A customer paid and got no credits. Refund it, or grant the credits: "
        "[errors-api.md](errors-api.md#a-payment-that-gave-no-credits)."
    ),
    "stripe_refused": "Stripe refused a request. Look at the request in Stripe, under Developers, Logs.",
    "subscription_discovery_failed": (
        "Lago could not be asked for the subscriptions of all orgs; the next round does it. [errors.md](errors.md) "
        "says what to do about the reason."
    ),
    "subscriptions_unknown": (
        "Lago did not answer which subscriptions this org has; it is asked again. If it lasts, look at Lago."
    ),
    "timezone_unknown": (
        "This machine does not know the time zone of a customer, so its billing periods are taken in UTC. Correct the "
        "zone in Lago."
    ),
    "usage_after_end": (
        "Usage was posted after the end of its subscription and is not billed again yet. Do what "
        "[stuck-usage.md](stuck-usage.md#after-an-end-in-lago) says for the reason."
    ),
    "usage_after_end_given_up": (
        "After 40 days such usage was still undecided, and is no longer looked for. Compare the org's last invoice "
        "with `meterbridge explain`, and bill the difference in Lago."
    ),
    "usage_by_two_routes": (
        "Usage of a customer came by two callbacks within an hour, and may be billed twice. Switch one off: "
        "[litellm.md](litellm.md#moving-from-one-callback-to-another)."
    ),
    "usage_day_not_summed": (
        "Postgres could not make the sums of this day; it is tried again: "
        "[processes.md](runbooks/processes.md#meterbridgeanalyticsfail)."
    ),
    "usage_held": (
        "Usage of this customer is counted, and waits until it can be billed. "
        "[errors.md](errors.md#usage-that-waits-held) says what to do about the reason."
    ),
    "usage_held_of_more_customers": (
        "Usage of so many more customers began to be held, who are not named in the log. `meterbridge held list` names "
        "them."
    ),
    "usage_rebilled": "Usage that no invoice counted was billed again, on these subscriptions.",
    "usage_recorded": "A program stored usage for an org by the library or the API.",
    "usage_summary_waits": (
        "The sums for analytics cannot be refreshed now; it is tried again, and no call is missed. "
        "[errors.md](errors.md) says what to do about the reason."
    ),
    "usage_unpriced": (
        "LiteLLM reported calls of this model without a cost, so they are not billed. Unless the model is free, give "
        "LiteLLM its price: [metering.md](runbooks/metering.md#meterbridgeusagewithoutprice)."
    ),
    "windows_sealed_early": (
        "Too many windows are open in a ledger, so some are closed early and become more events. "
        "[operations.md](operations.md#when-an-alarm-rings) says how to find the client."
    ),
}

MEANINGS: Final = _OF_BILLING | OF_PROCESSES
