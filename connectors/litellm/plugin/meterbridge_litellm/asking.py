"""What asking Meterbridge about a call needs."""

from typing import NamedTuple

import httpx

from meterbridge_litellm.counts import Counts
from meterbridge_litellm.refusal import Unasked
from meterbridge_litellm.settings import PluginSettings


class Asking(NamedTuple):
    """With what the classes that ask about a call are made.

    Fields:
        unasked: decides where Meterbridge does not answer.
        http: has the address and the key of the management API; its timeout is the longest time that a call waits.
    """

    settings: PluginSettings
    counts: Counts
    unasked: Unasked
    http: httpx.AsyncClient
