"""Names of the Postgres tables that the projector fills, each written once."""

from typing import Final

USAGE: Final = "llm_usage_log"
EVENTS: Final = "lago_events"
RECEIPTS: Final = "receipts"
REJECTED: Final = "rejected_calls"
CUSTOMERS: Final = "customer_records"
ORGS: Final = "organisations"
AUDIT: Final = "audit_log"
DELIVERIES: Final = "webhook_delivery_logs"
#: Also written by the functions for credits.
CREDITS: Final = "credit_transactions"
TABLES: Final = (USAGE, EVENTS, RECEIPTS, REJECTED, CUSTOMERS, ORGS, AUDIT, DELIVERIES, CREDITS)
