"""What a credential may be allowed to do, by name; docs/access.md says it at more length."""

from collections.abc import Iterable, Mapping
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

#: Old names of scopes, in stored keys and in users' tokens, and the names that they have now.
FORMER: Final[Mapping[str, str]] = {}


def current_scopes(stored: Iterable[str], former: Mapping[str, str] = FORMER) -> frozenset[str]:
    """The scopes of a stored key or of a token, each under the name that it has now.

    Args:
        former: new names by old ones.
    """
    return frozenset(former.get(scope, scope) for scope in stored)
