"""The scopes of credentials; docs/access.md describes them."""

from typing import Final

EVERYTHING: Final = "*"

SCOPES: Final = {
    "mappings:read": "see which Lago customer pays for a LiteLLM customer, and whose usage waits for one",
    "mappings:write": "change it",
    "orgs:read": "see orgs, their subscriptions, limits and usage",
    "orgs:write": "set orgs up, change and end their subscriptions and limits, let them pay",
    "customers:read": "see Lago's customers",
    "customers:write": "make and change them",
    "invoices:read": "see invoices",
    "usage:write": "record usage",
    "usage:correct": "record usage below 0 as well, which makes a bill smaller",
    "plans:read": "see plans",
    "plans:write": "make and change plans",
    "letters:write": "put dead letters back on their way",
    "stats:read": "see the way of usage in numbers",
    "keys:read": "see API keys, never their tokens",
    "keys:write": "make, rotate and revoke API keys that may do no more than their maker",
}
