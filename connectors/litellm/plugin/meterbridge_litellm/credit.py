"""Reserves credit at Meterbridge before a call. Off by default (`METERBRIDGE_AUTHORIZE`).

The record of the call settles the reservation by its call id. A failed call releases it. A reservation without an end
expires after `reserve_seconds`.
"""

import asyncio
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import httpx

from meterbridge_litellm.asking import UNANSWERED, Asking
from meterbridge_litellm.refusal import Refused

_PATH: Final = "/api/v1/credits/authorize"
#: Limits for late responses: how long the plugin waits for them, seconds, and for how many at a time. Other
#: reservations expire.
_LATE_S, _MOST_LATE = 10.0, 100
_CHARACTERS_PER_TOKEN: Final = 3
_OUTPUT_TOKENS: Final = 1000  # if the request has no limit
#: The largest numbers of a request that are multiplied by a price: a client writes them, and may write any.
_MOST_TOKENS, _MOST_CHOICES = 10**9, 10**6
_STEP: Final = Decimal("0.000000000001")
#: Refused, because otherwise a client could send calls for which no reservation can be requested.
_MALFORMED: Final = frozenset({400, 409, 422})
_BOUNDS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_TEXTS: Final = ("messages", "input", "prompt", "system", "tools", "contents", "instructions", "query", "documents")


#: LiteLLM's prices in dollars per token, by model.
Prices = Mapping[str, Mapping[str, Any]]


class Credit:
    """Reserves credit for calls. Args: prices: LiteLLM's prices."""

    def __init__(self, asking: Asking, prices: Prices) -> None:
        self._settings, self._counts, self._unasked, self._http = asking
        self._prices = prices
        self._late: set[asyncio.Task[None]] = set()

    async def set_aside(self, user: Any, data: Mapping[str, Any], call_id: str) -> str:
        """Reserve the estimated cost of a call; return the id of the reservation, `""` = there is none, and the call
        may be made.

        Args:
            user: LiteLLM's `UserAPIKeyAuth`.
            data: the request.
            call_id: `""` = LiteLLM has no id, so no record could settle the reservation.

        Raises:
            Refused: 400: Meterbridge refuses the request; 402: there is not enough credit; 503: Meterbridge does not
                answer, or answers 429, and the settings (`Unasked`) forbid the call.
        """
        account = self._account(user)
        estimate = self.estimate(data)
        if not call_id:
            self._unasked.go_on(estimate, "no_call_id", account)
            return ""
        body = {
            "account": account,
            "estimate": f"{estimate:f}",
            "ttl": self._settings.reserve_seconds,
            "call_id": call_id,
        }
        try:
            answer = await self._http.post(_PATH, json=body)
            reply: Any = answer.json() if answer.is_success else None
        except UNANSWERED as error:
            try:
                self._unasked.go_on(estimate, type(error).__name__, account)
            except Refused:
                self._give_back_later(body)
                raise
            return ""
        except asyncio.CancelledError:  # the client has gone
            self._give_back_later(body)
            raise
        if isinstance(reply, dict) and reply.get("authorized") is True:
            self._unasked.answered()
            return str(reply.get("reservation_id") or "")
        if answer.status_code == httpx.codes.PAYMENT_REQUIRED:
            self._unasked.answered()
            raise Refused(402, "insufficient_credits", "the credits do not cover this call")
        if answer.status_code in _MALFORMED:
            self._counts.warn("credit_question_refused", why=f"http_{answer.status_code}")
            raise Refused(400, "credit_question_refused", "credit cannot be asked for this call")
        self._unasked.go_on(estimate, f"http_{answer.status_code}", account)
        return ""

    def _give_back_later(self, body: Mapping[str, Any]) -> None:
        """Release credit that Meterbridge may have reserved for a call that is not made, because its response was late."""
        if len(self._late) < _MOST_LATE:
            task = asyncio.create_task(self._give_back_unknown(body))
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def _give_back_unknown(self, body: Mapping[str, Any]) -> None:
        """Repeat the request to get the id of the reservation, because the same request gets the same response."""
        try:
            answer = await self._http.post(_PATH, json=body, timeout=_LATE_S)
            reply: Any = answer.json() if answer.is_success else None
        except UNANSWERED as error:
            self._counts.warn("reservation_not_given_back", why=type(error).__name__)
            return
        if isinstance(reply, dict) and reply.get("reservation_id"):
            await self.give_back(str(reply["reservation_id"]))

    async def give_back(self, reservation: str) -> None:
        """Release the reservation of a failed call. If this fails, the reservation expires."""
        try:
            answer = await self._http.delete(f"{_PATH}/{reservation}")
        except UNANSWERED as error:
            self._counts.warn("reservation_not_given_back", why=type(error).__name__)
            return
        if answer.is_success:
            self._counts.add("released")
        else:
            self._counts.warn("reservation_not_given_back", why=f"http_{answer.status_code}")

    def estimate(self, data: Mapping[str, Any]) -> Decimal:
        """Estimate the cost of a call in dollars by LiteLLM's prices, from the length of its text and the limit of its
        answer.

        For a model without a price per token, and for a call without a model, the estimate is `estimate_usd`.

        Raises:
            Refused: 400: the request is nested too deeply.
        """
        price = self._prices.get(str(data.get("model"))) or {}
        inward, outward = (price.get(f"{kind}_cost_per_token") for kind in ("input", "output"))
        if not inward and not outward:
            return self._settings.estimate_usd
        try:
            text = sum(len(str(data[name])) for name in _TEXTS if data.get(name))
        except RecursionError:
            raise Refused(400, "credit_question_refused", "the request is nested too deeply") from None
        answer = next((data[name] for name in _BOUNDS if isinstance(data.get(name), int)), _OUTPUT_TOKENS)
        choices = min(max(data["n"], 1), _MOST_CHOICES) if isinstance(data.get("n"), int) else 1
        cost = Decimal(math.ceil(text / _CHARACTERS_PER_TOKEN)) * Decimal(str(inward or 0))
        cost += Decimal(min(max(answer, 0), _MOST_TOKENS)) * Decimal(str(outward or 0)) * choices
        return max(cost.quantize(_STEP), _STEP)

    def _account(self, user: Any) -> str:
        kind = self._settings.account
        name = getattr(user, "org_id" if kind == "org" else "user_id", None)
        if not name or name == "default_user_id":
            raise Refused(402, "no_account", f"the key names no {kind}, so there are no credits to use")
        return f"{kind}:{name}"
