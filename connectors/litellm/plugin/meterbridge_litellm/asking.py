"""The common parts of requests to Meterbridge about a call."""

from typing import Final, NamedTuple

import httpx

from meterbridge_litellm.counts import Counts
from meterbridge_litellm.refusal import Unasked
from meterbridge_litellm.settings import PluginSettings

#: The errors of a request without a response, and of a response that is not Meterbridge's.
UNANSWERED: Final = (httpx.HTTPError, ValueError, RecursionError)


class Asking(NamedTuple):
    """The arguments of the classes that send requests about a call.

    Fields:
        unasked: decides when Meterbridge does not answer.
        http: has the address and the key of the management API; its timeout is the maximum time that a call waits.
    """

    settings: PluginSettings
    counts: Counts
    unasked: Unasked
    http: httpx.AsyncClient
