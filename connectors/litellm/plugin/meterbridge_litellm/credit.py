"""Before a call: credit is set aside for it at Meterbridge. Off by default (`METERBRIDGE_AUTHORIZE`).

The record of the call settles what was set aside, by its call id; what no record settles is free again after `reserve_seconds`.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import httpx

from meterbridge_litellm.counts import Counts
from meterbridge_litellm.settings import Settings

_PATH: Final = "/api/v1/credits/authorize"
_CHARACTERS_PER_TOKEN: Final = 3
_OUTPUT_TOKENS: Final = 1000  # where the request has no bound
_STEP: Final = Decimal("0.000000000001")
_CALL_ID_HEADER: Final = "x-litellm-call-id"
#: Refused, because otherwise a client could have calls let through that cannot be asked for.
_MALFORMED: Final = frozenset({400, 409, 422})
_BOUNDS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class Refused(Exception):
    """The call must not be made. Attributes: `status` for HTTP, `reason` a stable code, `detail` a sentence for people."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail = status, reason, detail


class Credit:
    """Asks for the credit of calls.

    Args:
        http: has the address and the key of the management API; its timeout is the longest time that a call waits.
        prices: LiteLLM's prices by model, in dollars per token.
    """

    def __init__(
        self, settings: Settings, counts: Counts, http: httpx.AsyncClient, prices: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._settings, self._counts, self._http, self._prices = settings, counts, http, prices
        #: Estimates of calls that were let through unasked, since Meterbridge answered last.
        self._unasked = Decimal(0)

    async def set_aside(self, user: Any, data: Mapping[str, Any]) -> None:
        """Set the estimated cost of a call aside.

        Args:
            user: LiteLLM's `UserAPIKeyAuth`.
            data: the request. Without a model it is no call that costs something.

        Raises:
            Refused: 400: the client chose the call id, or Meterbridge cannot take the question; 402: there is no credit; 429: asked
                too often; 503: Meterbridge does not answer, and the setting `fail` or `fail_open_usd` forbids to go on.
        """
        model, call_id = data.get("model"), data.get("litellm_call_id")
        if not model or not call_id:
            return
        if _call_id_is_chosen(data):  # one reservation would serve for many calls
            raise Refused(400, "call_id_chosen", f"the header {_CALL_ID_HEADER} is not allowed")
        account = self._account(user)
        estimate = self.estimate(str(model), data)
        body = {
            "account": account,
            "estimate": f"{estimate:f}",
            "ttl": self._settings.reserve_seconds,
            "call_id": call_id,
        }
        try:
            answer = await self._http.post(_PATH, json=body)
        except httpx.HTTPError as error:
            self._go_on(estimate, type(error).__name__)
            return
        if answer.is_success:
            self._unasked = Decimal(0)
        elif answer.status_code == httpx.codes.PAYMENT_REQUIRED:
            self._unasked = Decimal(0)
            raise Refused(402, "insufficient_credits", "the credits do not cover this call")
        elif answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise Refused(429, "too_many_requests", "credit is asked for too often; try again")
        elif answer.status_code in _MALFORMED:
            self._counts.tell("credit_question_refused", why=f"http_{answer.status_code}")
            raise Refused(400, "credit_question_refused", "credit cannot be asked for this call")
        else:
            self._go_on(estimate, f"http_{answer.status_code}")

    def estimate(self, model: str, data: Mapping[str, Any]) -> Decimal:
        """The cost of a call in dollars by LiteLLM's prices, from the length of its text and the bound of its answer.

        For a model without a price per token it is `estimate_usd`.
        """
        price = self._prices.get(model) or {}
        inward, outward = (price.get(f"{kind}_cost_per_token") for kind in ("input", "output"))
        if not inward and not outward:
            return self._settings.estimate_usd
        text = sum(
            len(str(data[name])) for name in ("messages", "input", "prompt", "system", "tools") if data.get(name)
        )
        answer = next((data[name] for name in _BOUNDS if isinstance(data.get(name), int)), _OUTPUT_TOKENS)
        choices = max(data["n"], 1) if isinstance(data.get("n"), int) else 1
        cost = Decimal(math.ceil(text / _CHARACTERS_PER_TOKEN)) * Decimal(str(inward or 0))
        cost += Decimal(max(answer, 0)) * Decimal(str(outward or 0)) * choices
        return max(cost.quantize(_STEP), _STEP)

    def _account(self, user: Any) -> str:
        kind = self._settings.account
        name = getattr(user, "org_id" if kind == "org" else "user_id", None)
        if not name or name == "default_user_id":
            raise Refused(402, "no_account", f"the key names no {kind}, so nobody's credits can be used")
        return f"{kind}:{name}"

    def _go_on(self, estimate: Decimal, why: str) -> None:
        """Let a call through that nobody authorised, within the bound. Raises: Refused."""
        if self._settings.fail == "open" and self._unasked + estimate <= self._settings.fail_open_usd:
            self._unasked += estimate
            self._counts.add("admitted_unasked")
            self._counts.tell("credit_not_asked", why=why, sum_usd=str(self._unasked))
            return
        self._counts.add("refused_unasked")
        self._counts.tell("calls_refused_without_credit_check", why=why)
        raise Refused(503, "credit_check_unavailable", "credit cannot be checked now; try again")


def _call_id_is_chosen(data: Mapping[str, Any]) -> bool:
    request = data.get("proxy_server_request")
    headers = request.get("headers") if isinstance(request, Mapping) else None
    return isinstance(headers, Mapping) and any(str(name).lower() == _CALL_ID_HEADER for name in headers)
