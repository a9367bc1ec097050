"""Classifies failed calls into a few categories, for people and for provider health.

Source: the exceptions of LiteLLM (litellm/exceptions.py). They have the HTTP status of the provider, or a corresponding
one.
"""

from typing import Final

FAILURE: Final = "failure"
RATE_LIMIT, TIMEOUT, SERVER, AUTH, CLIENT, OTHER = CATEGORIES = (
    *("rate_limit", "timeout", "server", "auth", "client", "other"),
)
#: The failures that the provider causes. The caller or the proxy causes the others.
OF_PROVIDER: Final = frozenset({RATE_LIMIT, TIMEOUT, SERVER})
_BY_CLASS: Final = {
    "RateLimitError": RATE_LIMIT,
    "Timeout": TIMEOUT,
    "APIConnectionError": SERVER,
    "ServiceUnavailableError": SERVER,
    "InternalServerError": SERVER,
    "BadGatewayError": SERVER,
    "AuthenticationError": AUTH,
    "PermissionDeniedError": AUTH,
    "BudgetExceededError": CLIENT,
}
_BY_CODE: Final = {"401": AUTH, "403": AUTH, "408": TIMEOUT, "429": RATE_LIMIT, "504": TIMEOUT}


def category_of(code: str, name: str) -> str:
    """Return the category of a failure.

    Args:
        code: HTTP status as text, `""` = none is known.
        name: name of LiteLLM's exception, with or without its module; `""` = none is known. It is more exact than the
            status. For example, an exceeded budget of LiteLLM has the status 429 in some versions, and the provider did
            not cause it.
    """
    if known := _BY_CLASS.get(name.rpartition(".")[2]):
        return known
    if known := _BY_CODE.get(code):
        return known
    if len(code) == 3 and code.isdecimal():
        return SERVER if code[0] == "5" else CLIENT if code[0] == "4" else OTHER
    return OTHER
