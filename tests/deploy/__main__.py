"""`make deploy-test`: the README's quick start on a real engine, and what may happen to a deployment afterwards.

It takes some minutes, the ports of the compose file on this machine, and images that can be had. Everything it makes is removed.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.compose import FILE, Compose, Failed, engine

INGRESS, API, LAGO = "http://127.0.0.1:8080", "http://127.0.0.1:3002", "http://127.0.0.1:3000"
ENVIRONMENT = {
    "LAGO_API_KEY": "a-key-of-the-sandbox",
    "WEBHOOK_TOKEN": "a-token-of-this-trial-alone",
    "LITELLM_MASTER_KEY": "sk-master-of-this-trial",
    "POSTGRES_PASSWORD": "p@ss/w:rd%1#x",
}
SERVICES = ("kafka", "postgres", "ingress", "worker", "projector", "api", "lago-sandbox")
PRICE = Decimal("0.0123")


class Trial:
    """One deployment and what it owes."""

    def __init__(self, compose: Compose) -> None:
        self.compose = compose
        self.http = httpx.Client(trust_env=False, timeout=30)
        self.sent = 0
        self._began = time.monotonic()
        self._numbers = itertools.count(1)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say what is tried, and how long it took."""
        began = time.monotonic()
        print(f"{began - self._began:6.1f} s  {name} ...", flush=True)
        yield
        print(f"          {time.monotonic() - began:.1f} s", flush=True)

    def post(self, count: int = 5) -> None:
        """Calls of acme's, each again until it is answered with 202, as LiteLLM does."""
        for number in itertools.islice(self._numbers, count):
            call = {"id": f"try-{number}", "user": "acme", "model": "gpt-4o", "tokens_input": 100, "tokens_output": 20}
            self.until(lambda call=call: self._taken({**call, "cost_usd": str(PRICE)}), "a call is taken", 60)
            self.sent += 1

    def _taken(self, call: dict[str, Any]) -> bool:
        bearer = {"Authorization": f"Bearer {ENVIRONMENT['WEBHOOK_TOKEN']}"}
        try:
            answer = self.http.post(INGRESS + "/webhooks/litellm", json=call, headers=bearer)
        except httpx.HTTPError:
            return False
        if answer.status_code < 500 and answer.status_code != 202:
            raise Failed(f"a call was answered with {answer.status_code}: {answer.text}")
        return answer.status_code == 202

    def api(self, path: str, body: dict[str, Any]) -> Any:
        """POST to the management API."""
        bearer = {"Authorization": f"Bearer {ENVIRONMENT['LITELLM_MASTER_KEY']}"}
        answer = self.http.post(API + path, json=body, headers=bearer)
        if answer.status_code not in (200, 201):
            raise Failed(f"POST {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def billed(self) -> Decimal:
        """Cents that the sandbox took."""
        try:
            return Decimal(self.http.get(LAGO + "/__stats").json()["totals"]["billed_cents"])
        except httpx.HTTPError:
            return Decimal(-1)

    def until_billed(self) -> None:
        """All that was sent, to the cent, within a window and a half."""
        self.until(lambda: self.billed() == self.sent * PRICE * 100, "everything is billed once", 150)

    def until(self, done: Callable[[], bool], what: str, limit_s: float) -> None:
        """Raises: Failed: it is not so within `limit_s`."""
        deadline = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > deadline:
                raise Failed(
                    f"not within {limit_s:.0f} s: {what}; billed {self.billed()} of {self.sent * PRICE * 100} cents"
                )
            time.sleep(0.5)

    def healthy(self) -> bool:
        """Every service that stays says that it is well."""
        states = self.compose.states()
        return all(states.get(service) == "healthy" for service in SERVICES)


def first_day(trial: Trial) -> None:
    """The quick start, as README.md has it."""
    with trial.step("up --build --wait"):
        trial.compose.run("up", "--build", "--wait", limit_s=900)
        assert trial.healthy(), trial.compose.states()
    with trial.step("lago setup, an org with a subscription, a mapping"):
        trial.compose.run("run", "--rm", "-T", "tools", "lago", "setup")
        trial.api("/api/v1/billing/org/organizations/acme-inc/setup", {"plan_code": "ai_basic"})
        mapping = {"litellm_customer_id": "acme", "lago_customer_id": "acme-inc", "lago_organization_id": "main"}
        told = trial.api("/customers/mapping", mapping)
        if told.get("held_reason"):
            raise Failed(f"a mapped customer's usage is held: {told}")
    with trial.step("usage in, billed"):
        trial.post()
        trial.until_billed()


def commands(trial: Trial) -> None:
    """What an operator asks, inside."""
    with trial.step("doctor, explain, reconcile, dlq list, held list, topics check"):
        findings = trial.compose.command("doctor")
        known = {finding["code"] for finding in findings["findings"]}
        if known & {"no_webhook_credentials", "spool_unset"}:
            raise Failed(f"doctor does not see what is set: {known}")
        story = trial.compose.command("explain", "--request", "try-1")
        if story["calls"][0]["event"]["status"] != "completed":
            raise Failed(f"explain: {story}")
        for words in (["reconcile", "--lago"], ["dlq", "list"], ["held", "list"], ["topics", "check"]):
            trial.compose.command(*words)


def accidents(trial: Trial) -> None:
    """Every service is killed and restarted while calls come; then all is taken down and comes up from its volumes."""
    for service in SERVICES:
        with trial.step(f"kill and restart {service}"):
            trial.compose.run("kill", "--signal", "KILL", service)
            if service not in ("ingress", "kafka"):
                trial.post(1)
            trial.compose.run("up", "--detach", "--no-recreate", "--no-deps", service)
            trial.post(1)
            trial.compose.run("restart", service)
            trial.post(1)
    with trial.step("healthy again, billed"):
        trial.until(trial.healthy, "every service is healthy again", 150)
        trial.until_billed()
    with trial.step("down, up from the volumes, billed"):
        trial.compose.run("down")
        trial.compose.run("up", "--wait", limit_s=400)
        trial.post()
        trial.until_billed()
        if not (told := trial.compose.command("reconcile", "--lago"))["adds_up"]:
            raise Failed(f"reconcile --lago: {told}")


def mistakes(trial: Trial) -> None:
    """What is set wrong is said at once, by the name of a service and the reason in its log."""
    for name, value, service, reason in (
        ("POSTGRES_PASSWORD", "another", "tables", "postgres_denied"),
        ("KAFKA_PARTITIONS", "6", "topics", "partitions where 6 are expected"),
    ):
        with trial.step(f"another {name}"):
            trial.compose.run("down")
            trial.compose.write({**ENVIRONMENT, name: value})
            code, _, err = trial.compose.ended("up", "--wait", limit_s=240)
            if code == 0 or service not in err:
                raise Failed(f"up ended with {code}: {err[-1000:]}")
            if reason not in trial.compose.run("logs", service):
                raise Failed(f"{service} does not say {reason}")
    trial.compose.write(ENVIRONMENT)


def main() -> int:
    """0 when the deployment did what it should."""
    if not (version := engine()):
        print("no Docker engine answers: nothing was tried (DOCKER_HOST says where one is)")
        return 2
    print(f"Docker {version}, {FILE.name}")
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Compose(Path(folder), ENVIRONMENT))
        try:
            for part in (first_day, commands, accidents, mistakes):
                part(trial)
        except Failed as error:
            print(f"FAILED: {error}\n{trial.compose.run('ps', '--all', strict=False)}")
            print(trial.compose.run("logs", "--tail", "15", "--no-log-prefix", strict=False)[-6000:])
            return 1
        finally:
            trial.compose.ended("down", "--volumes", "--remove-orphans")
    print(f"{trial.sent} calls, {trial.sent * PRICE} USD, each billed once")
    return 0


if __name__ == "__main__":
    sys.exit(main())
