"""Posts a call of the canary to the ingress, as LiteLLM's `generic_api` callback posts one.

The body is a list with one `StandardLoggingPayload`, which has the metered fields (docs/litellm.md). LiteLLM cannot
sign a body, so it sends a token. The canary can do both.
"""

import asyncio
import hmac
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Final

import httpx
import msgspec

from connectors.config.addresses import bare_url
from connectors.lago.bounded_response import bounded_response
from connectors.litellm.seen import USAGE_PATH
from schemas.moments import SECOND_US
from streams.core.delivery.canary import CanaryCall

PROVIDER: Final = "canary"
#: Tokens of a call, and its duration in microseconds.
TOKENS_IN, TOKENS_OUT, TOOK_US = 10, 12, 1_000_000
#: The member of the payload for each party that `CUSTOMER_ID_FIELDS` may list (streams/core/metering/customer_key.py).
FIELDS: Final = {
    "end_user": "user_api_key_end_user_id",
    "user": "user_api_key_user_id",
    "team": "user_api_key_team_id",
    "organization": "user_api_key_org_id",
    "key": "user_api_key_hash",
}
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential of the canary; `token` is preferred. Both `""` = it sends none."""

    token: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    def headers(self, body: bytes, now_s: int) -> dict[str, str]:
        """Return the headers of a request with this body. The time is in seconds since 1970 UTC."""
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        if not self.secret:
            return {}
        signature = hmac.new(self.secret.encode(), b"%d." % now_s + body, sha256).hexdigest()
        return {"X-Webhook-Signature": f"t={now_s},v1={signature}"}


def body_of(call: CanaryCall, customer: str, party: str, cost_usd: Decimal) -> bytes:
    """Return the body of a request with one call.

    Args:
        party: the field that holds the customer, one of `FIELDS`.
        cost_usd: the cost that LiteLLM would report, in dollars.
    """
    ended = Decimal(call.ended_us) / SECOND_US
    payload: dict[str, Any] = {
        "id": call.id,
        "litellm_call_id": call.id,
        "call_type": "acompletion",
        "status": "success",
        "custom_llm_provider": PROVIDER,
        "model": call.model,
        "startTime": Decimal(call.ended_us - TOOK_US) / SECOND_US,
        "endTime": ended,
        "completionStartTime": ended,
        "response_cost": cost_usd,
        "prompt_tokens": TOKENS_IN,
        "completion_tokens": TOKENS_OUT,
        "total_tokens": TOKENS_IN + TOKENS_OUT,
        "request_tags": [],
        "metadata": {**dict.fromkeys(FIELDS.values()), FIELDS[party]: customer},
    }
    return _encode([payload])


class CanaryPost:
    """Posts calls to one ingress.

    Args:
        http: the caller closes it; its timeout limits a post.
        url: URL of the ingress, without a path.
        customer, party, cost_usd: see `body_of`.
    """

    def __init__(
        self, http: httpx.AsyncClient, url: str, credential: Credential, customer: str, party: str, cost_usd: Decimal
    ) -> None:
        self._http = http
        self._url = url.rstrip("/") + USAGE_PATH
        self._place = bare_url(self._url)
        self._credential = credential
        self._customer = customer
        self._party = party
        self._cost_usd = cost_usd

    async def post(self, call: CanaryCall, now_us: int) -> str:
        """Post the call once; return why the ingress did not accept it, `""` = the call is durable there."""
        body = body_of(call, self._customer, self._party, self._cost_usd)
        headers = {"Content-Type": "application/json", **self._credential.headers(body, now_us // SECOND_US)}
        request = self._http.build_request("POST", self._url, content=body, headers=headers)
        try:
            async with asyncio.timeout(self._http.timeout.read):
                answer = await bounded_response(self._http, request)
        except (httpx.RequestError, TimeoutError) as error:
            return f"{self._place} does not answer: {type(error).__name__}"
        if answer.status_code != HTTPStatus.ACCEPTED:
            return f"{self._place} answered {answer.status_code}"
        return "" if b'"accepted"' in answer.content else f"{self._place} rejected the call"
