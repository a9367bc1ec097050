"""The part of Meterbridge's HTTP API that the SDK uses.

The SDK shares no code with the server. These names are a copy, and a test of Meterbridge's repository compares them
with the server's names (tests/contract/test_sdk_wire.py).
"""

from typing import Final, NamedTuple
from urllib.parse import quote


class Route(NamedTuple):
    """One operation of the API.

    Fields:
        method: the HTTP method.
        path: with `{org_id}` in place of the org's id.
        scope: the scope that the API key needs.
    """

    method: str
    path: str
    scope: str

    def of_org(self, org_id: str) -> str:
        """Return the path for one org, its id percent-encoded."""
        return self.path.replace("{org_id}", quote(org_id, safe=""))


_ORG: Final = "/api/v1/billing/org/organizations/{org_id}"
RECORD_USAGE: Final = Route("POST", f"{_ORG}/usage/record", "usage:write")
CURRENT_USAGE: Final = Route("GET", f"{_ORG}/usage/current", "orgs:read")
LIMITS: Final = Route("GET", f"{_ORG}/limits", "orgs:read")
SUBSCRIPTION: Final = Route("GET", f"{_ORG}/subscription", "orgs:read")
SETUP: Final = Route("POST", f"{_ORG}/setup", "orgs:write")
CHANGE_PLAN: Final = Route("PUT", f"{_ORG}/subscription", "orgs:write")
ROUTES: Final = (RECORD_USAGE, CURRENT_USAGE, LIMITS, SUBSCRIPTION, SETUP, CHANGE_PLAN)

#: Code of the billable metric that counts the API calls of a service.
API_CALL: Final = "api_call"
#: Longest id or code, bytes of UTF-8.
MAX_ID_BYTES: Final = 255
#: Names and values of an event's properties together, bytes of UTF-8.
MAX_PROPERTIES_BYTES: Final = 4096
#: Digits of a number that Lago can hold.
MAX_DIGITS: Final = 40
#: Names of the limits that are not a metric's code.
TOKENS, REQUESTS, AMOUNT_CENTS = "tokens", "requests", "amount_cents"
#: Reason of a refusal: the org already has a subscription, on another plan.
OTHER_PLAN: Final = "other_plan"
#: Reasons of a 404 that name the missing object. Any other 404 means that the address is not Meterbridge's.
NO_SUBSCRIPTION, UNKNOWN_ORG = "no_subscription", "unknown_org"
