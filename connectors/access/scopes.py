"""The scopes of credentials; docs/access.md describes them."""

from collections.abc import Iterable, Mapping
from typing import Final

EVERYTHING: Final = "*"

SCOPES: Final = {
    "mappings:read": "see which Lago customer pays for a LiteLLM customer, and whose usage waits for one",
    "mappings:write": "change it",
    "orgs:read": "see orgs, their subscriptions, limits and usage",
    "orgs:write": "set up orgs, change and end their subscriptions and limits, get links to pay",
    "customers:read": "see Lago's customers",
    "customers:write": "make and change them",
    "invoices:read": "see invoices",
    "usage:write": "record usage",
    "usage:correct": "also record usage below 0, which reduces a bill",
    "plans:read": "see plans",
    "plans:write": "make and change plans",
    "dead_letters:write": "requeue dead letters",
    "stats:read": "see how many calls and events are in each state",
    "keys:read": "see API keys, never their tokens",
    "keys:write": "make, rotate and revoke API keys that may do no more than their maker",
    "credits:read": "see the credits of others: balances, transactions, payments that were refused",
    "credits:write": "reserve, debit and buy credits for others",
    "provider_keys:read": "see all users' keys of LLM providers, masked",
    "provider_keys:write": "store and revoke keys of LLM providers for all users",
    "analytics:read": "see the sums of all usage",
    "provider_keys:decrypt": "get a user's key of an LLM provider in the clear: for the program that calls providers, and for nothing else",
}

#: Old names of scopes, in stored keys and in users' tokens, and the names that they have now.
FORMER: Final[Mapping[str, str]] = {"letters:write": "dead_letters:write"}


def current_scopes(stored: Iterable[str], former: Mapping[str, str] = FORMER) -> frozenset[str]:
    """Return the scopes of a stored key or of a token, each under the name that it has now.

    Args:
        former: new names by old ones.
    """
    return frozenset(former.get(scope, scope) for scope in stored)
