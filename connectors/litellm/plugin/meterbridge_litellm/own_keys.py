"""Uses a user's own key of an LLM provider for the calls of that user (`METERBRIDGE_OWN_KEYS`).

Meterbridge stores the key. The plugin has it only in memory, for `own_key_seconds`, and in the request that LiteLLM
sends: never in a log, an error, a record or a file. It goes only to deployments that the operator has marked with its
provider.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import httpx

from meterbridge_litellm.asking import UNANSWERED, Asking
from meterbridge_litellm.calls import ROUTED

_PATH: Final = "/api/v1/provider-keys/resolve"
#: `model_info` of a deployment that may get users' keys: the provider whose keys they are.
MARK: Final = "own_key_provider"
_MOST: Final = 10_000
#: A request that contains its own address or key gets no key from the plugin.
_CLIENTS_OWN: Final = ("api_key", "api_base", "base_url", "user_config")
#: Another model could belong to another provider, or use the operator's key.
_FALLBACKS: Final = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks")
#: Returns the deployments of a model group that may get a team's calls, or calls without a team.
Deployments = Callable[[str, str | None], Sequence[Mapping[str, Any]]]


class OwnKeys:
    """Requests users' keys.

    Args:
        deployments: of LiteLLM's router, by model group and team.
    """

    def __init__(self, asking: Asking, deployments: Deployments) -> None:
        self._settings, self._counts, self._unasked, self._http = asking
        self._deployments = deployments
        self._keys: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()  # `""` = the user has none

    async def use(self, user: Any, data: dict[str, Any], call_type: str, estimate: Decimal) -> bool:
        """Put the user's own key into a request, if there is one; return whether there is one.

        Raises:
            Refused: 503: it is unknown whether there is a key, and the setting `fail` or its limit forbids the use of
                the operator's key.
        """
        user_id = getattr(user, "user_id", None)
        if not user_id or call_type not in ROUTED or any(name in data for name in _CLIENTS_OWN):
            return False
        if data.get("background"):
            return False
        if not (provider := self._provider(data.get("model"), getattr(user, "team_id", None))):
            return False
        kept = self._keys.get((user_id, provider))
        if kept is not None and time.monotonic() < kept[0]:
            key = kept[1]
        elif (asked := await self._ask(user_id, provider, estimate)) is None:
            return False
        else:
            key = asked
        if not key:
            return False
        data["api_key"] = key
        data["disable_fallbacks"] = True
        for name in _FALLBACKS:
            data.pop(name, None)
        self._counts.add("own_key")
        return True

    def _provider(self, model: Any, team: str | None) -> str:
        """Return the provider whose keys all deployments of a model accept; `""` = there is no such provider."""
        if not isinstance(model, str):
            return ""
        marks = {str((each.get("model_info") or {}).get(MARK) or "").lower() for each in self._deployments(model, team)}
        return marks.pop() if len(marks) == 1 else ""

    async def _ask(self, user_id: str, provider: str, estimate: Decimal) -> str | None:
        """Request the key; `""` = the user has none; None = it is unknown, and the call may be made without it."""
        try:
            answer = await self._http.post(_PATH, json={"user_id": user_id, "provider": provider})
            reply: Any = answer.json()
        except UNANSWERED as error:
            self._unasked.go_on(estimate, f"own_key_{type(error).__name__}", f"user:{user_id}")
            return None
        if not isinstance(reply, dict):
            reply = {}
        if answer.is_success and isinstance(reply.get("api_key"), str) and reply.get("user_id") == user_id:
            key = str(reply["api_key"])
        elif (
            answer.status_code == httpx.codes.NOT_FOUND
            and (reply.get("reason") or reply.get("code")) == "no_provider_key"
        ):
            key = ""
        else:
            self._unasked.go_on(estimate, f"own_key_http_{answer.status_code}", f"user:{user_id}")
            return None
        self._unasked.answered()
        if self._settings.own_key_seconds:
            self._keys[user_id, provider] = (time.monotonic() + self._settings.own_key_seconds, key)
            self._keys.move_to_end((user_id, provider))
            if len(self._keys) > _MOST:
                self._keys.popitem(last=False)
        return key
