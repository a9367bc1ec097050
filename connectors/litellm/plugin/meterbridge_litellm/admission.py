"""The steps before a call, if they are enabled: power level, the user's own key, credit, in this order."""

from typing import Any

import httpx

from meterbridge_litellm.asking import Asking
from meterbridge_litellm.calls import ROUTED, CallDecision, call_id_of, id_is_chosen, may_cost
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.credit import Credit, Prices
from meterbridge_litellm.levels import Levels, read
from meterbridge_litellm.own_keys import Deployments, OwnKeys
from meterbridge_litellm.refusal import Refused, Unasked
from meterbridge_litellm.settings import FREE, OFF, PluginSettings


class Admission:
    """Decides about the calls of one process.

    Args:
        http: has the address and the key of the management API; its timeout is the maximum time that a call waits for
            one answer.
        prices: LiteLLM's prices by model, in dollars per token.
        deployments: returns the deployments of a model group.

    Raises:
        ValueError: the file of power levels is wrong.
    """

    def __init__(
        self,
        settings: PluginSettings,
        counts: Counts,
        http: httpx.AsyncClient,
        prices: Prices,
        deployments: Deployments,
    ) -> None:
        self._settings = settings
        asking = Asking(settings, counts, Unasked(settings, counts), http)
        self.credit = Credit(asking, prices)
        self._levels = Levels(read(settings.levels), settings, counts, http) if settings.levels else None
        self._own_keys = OwnKeys(asking, deployments) if settings.own_keys != OFF else None

    async def admit(self, user: Any, data: dict[str, Any], call_type: str) -> CallDecision:
        """Decide about a call, and change its request accordingly.

        Raises:
            Refused: the call must not be made.
        """
        decided, call_id = CallDecision(), call_id_of(data)
        if not may_cost(data, call_type):
            return decided
        if id_is_chosen(data):
            raise Refused(400, "call_id_chosen", "the header x-litellm-call-id is not allowed")
        if self._levels is not None and call_type in ROUTED:
            decided.level = await self._levels.apply(user, data)
        if self._own_keys is not None and call_id:  # otherwise its record could not say so
            decided.own_key = await self._own_keys.use(user, data, call_type, self.credit.estimate(data))
        if self._settings.authorize == "on" and not (decided.own_key and self._settings.own_keys == FREE):
            decided.reservation = await self.credit.set_aside(user, data, call_id)
        return decided
