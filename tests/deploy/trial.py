"""One deployment under test: calls are sent, and what the stand-in for Lago accepted is compared with what is owed."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import httpx

from tests.deploy.compose import Compose, Failed
from tests.support.eventually import eventually

LAGO = "http://127.0.0.1:3000"
ENVIRONMENT = {
    "LAGO_API_KEY": "a-key-of-the-sandbox",
    "WEBHOOK_TOKEN": "a-token-of-this-trial-alone",
    "LITELLM_MASTER_KEY": "sk-master-of-this-trial",
    "POSTGRES_PASSWORD": "p@ss/w:rd%1#x",
    # As in README.md for a trial: with the defaults a bill takes a minute, and there are many.
    "WINDOW_SECONDS": "10",
    "GRACE_SECONDS": "2",
}
SERVICES = ("kafka", "postgres", "ingress", "worker", "api", "lago-sandbox")
PRICE = Decimal("0.0123")
_BEGAN = time.monotonic()


def elapsed_s() -> float:
    """Seconds since the start of the trial."""
    return time.monotonic() - _BEGAN


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print what is tested, and its duration."""
    began = time.monotonic()
    print(f"{elapsed_s():6.1f} s  {name} ...", flush=True)
    yield
    print(f"          {time.monotonic() - began:.1f} s", flush=True)


class Trial:
    """One deployment and what it owes; webhooks are accepted at `ingress`, the management API answers at `api`."""

    def __init__(
        self, compose: Compose, ingress: str = "http://127.0.0.1:8080", api: str = "http://127.0.0.1:3002"
    ) -> None:
        self.compose = compose
        self.http = httpx.Client(trust_env=False, timeout=30)
        self.sent = 0
        self._ingress, self._api = ingress, api
        self._numbers = itertools.count(1)

    def post(self, count: int = 5) -> None:
        """Calls of acme's, each repeated until it is answered with 202, like LiteLLM does."""
        for number in itertools.islice(self._numbers, count):
            call = {"id": f"try-{number}", "user": "acme", "model": "gpt-4o", "tokens_input": 100, "tokens_output": 20}
            until(partial(self._taken, {**call, "cost_usd": str(PRICE)}), "a call is taken", 60)
            self.sent += 1

    def _taken(self, call: dict[str, Any]) -> bool:
        bearer = {"Authorization": f"Bearer {self.compose.value('WEBHOOK_TOKEN')}"}
        try:
            answer = self.http.post(self._ingress + "/webhooks/litellm", json=call, headers=bearer)
        except httpx.HTTPError:
            return False
        if answer.status_code < 500 and answer.status_code != 202:
            raise Failed(f"a call was answered with {answer.status_code}: {answer.text}")
        return answer.status_code == 202

    def api(self, path: str, body: dict[str, Any]) -> Any:
        """POST to the management API."""
        bearer = {"Authorization": f"Bearer {self.compose.value('LITELLM_MASTER_KEY')}"}
        answer = self.http.post(self._api + path, json=body, headers=bearer)
        if answer.status_code not in (200, 201):
            raise Failed(f"POST {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def map_acme(self) -> None:
        """An org with a subscription that charges usage, and acme's usage for it."""
        self.api("/api/v1/billing/org/organizations/acme-inc/setup", {"plan_code": "ai_basic"})
        mapping = {"litellm_customer_id": "acme", "lago_customer_id": "acme-inc", "lago_organization_id": "main"}
        result = self.api("/customers/mapping", mapping)
        if result.get("held_reason"):
            raise Failed(f"a mapped customer's usage is held: {result}")

    def billed(self) -> Decimal:
        """Cents that the sandbox accepted; -1 while it does not answer."""
        try:
            return Decimal(self.http.get(LAGO + "/__stats").json()["totals"]["billed_cents"])
        except httpx.HTTPError:
            return Decimal(-1)

    def until_billed(self) -> None:
        """Wait until everything sent is billed to the cent, within a window and a half."""
        owed = self.sent * PRICE * 100
        until(lambda: self.billed() == owed, f"{owed} cents are billed", 90, self.billed)

    def healthy(self) -> bool:
        """Every permanent service reports that it is healthy."""
        states = self.compose.states()
        return all(states.get(service) == "healthy" for service in SERVICES)


def until(done: Callable[[], bool], what: str, limit_s: float, details: Callable[[], object] = lambda: "") -> None:
    """Wait for a state that can only be observed from outside.

    Raises:
        Failed: it is not there within `limit_s` on a quiet machine; with what `details` answers.
    """
    try:
        eventually(done, limit_s, every_s=0.25)
    except AssertionError as error:
        raise Failed(f"not within {limit_s:.0f} s: {what}; {details()}") from error
