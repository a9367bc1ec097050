"""Outgoing webhooks: what is announced, its signature, and its delivery (docs/webhooks.md)."""
