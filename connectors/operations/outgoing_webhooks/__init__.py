"""Outgoing webhooks: makes, signs and delivers messages (docs/webhooks.md)."""
