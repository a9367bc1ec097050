"""A client of Meterbridge's API for a service: records usage, and reads subscriptions, usage and limits."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from http import HTTPStatus

import httpx

from meterbridge_sdk.cache import MAX_ENTRIES
from meterbridge_sdk.errors import BillingRejected
from meterbridge_sdk.events import Timestamp, UsageEvent, Value, usage_event
from meterbridge_sdk.logs import log_event
from meterbridge_sdk.responses import (
    CurrentUsage,
    OrgSubscription,
    invalid,
    json_object,
    limits_of,
    subscription_of,
    usage_of,
)
from meterbridge_sdk.transport import ATTEMPTS, Transport
from meterbridge_sdk.wire import (
    API_CALL,
    CHANGE_PLAN,
    CURRENT_USAGE,
    LIMITS,
    NO_SUBSCRIPTION,
    OTHER_PLAN,
    RECORD_USAGE,
    SETUP,
    SUBSCRIPTION,
    UNKNOWN_ORG,
    Route,
)


class MeterbridgeClient:
    """Meterbridge's API for one service.

    Args:
        http: pooled; its owner closes it. Its timeout, seconds, is that of one attempt.
        url: of Meterbridge's API, `https://billing.example.com` for example.
        api_key: the API key's token. It needs the scopes `usage:write` and `orgs:read`; `orgs:write` to subscribe orgs.
        attempts: the maximum number of attempts for a request, at least 1; a request that only reads has at most two.
            Waits between attempts are at most 5 s.
        random_number: a random number in `[0, 1)`.
        sleep: waits for a number of seconds.
        now: the time now, seconds since 1970.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: `url` is not an HTTP address, or has a query or a user name; `api_key` is more than a token;
            `attempts` is below 1.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        api_key: str,
        *,
        attempts: int = ATTEMPTS,
        random_number: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._transport = Transport(
            http, url, api_key, attempts=attempts, random_number=random_number, sleep=sleep, now=now
        )
        self._now = now
        self._warned: set[tuple[str, str]] = set()

    async def record_usage(
        self,
        org_id: str,
        event_code: str,
        transaction_id: str,
        properties: Mapping[str, Value] | None = None,
        timestamp: Timestamp | None = None,
    ) -> UsageEvent:
        """Record a usage event; it is durable in Kafka on return.

        Args:
            org_id: the org that pays.
            event_code: code of the billable metric.
            transaction_id: the event's id; the same id again is the same event.
            properties: the properties that the metric reads; names and values have at most 4096 bytes together.
            timestamp: when it happened; None = now.

        Returns:
            The event as it was sent, with the `warning` of Meterbridge's answer.

        Raises:
            BillingRejected: the event is wrong; `reason` names the error.
            BillingUnavailable: it is unknown whether the event is stored; repeating the call with the same timestamp is
                safe.
        """
        event = usage_event(org_id, event_code, transaction_id, properties, timestamp, self._now())
        return replace(event, warning=await self._store(event))

    async def record_api_call(
        self,
        org_id: str,
        transaction_id: str,
        endpoint: str,
        user_id: str | None = None,
        tokens: int = 0,
        model: str | None = None,
    ) -> UsageEvent:
        """Record one API call, on the metric `api_call`; for result and errors see `record_usage`."""
        properties = api_call_properties(endpoint, user_id, tokens, model)
        return await self.record_usage(org_id, API_CALL, transaction_id, properties)

    async def send(self, event: UsageEvent) -> None:
        """Record an event that was made before; for the errors see `record_usage`."""
        await self._store(event)

    async def _store(self, event: UsageEvent) -> str:
        """Record an event, and return the warning of the answer; `""` = none. The first one of an org and metric is logged."""
        sent = {
            "event_code": event.event_code,
            "transaction_id": event.transaction_id,
            "properties": dict(event.properties),
            "timestamp": event.timestamp,
        }
        response = await self._transport.request(RECORD_USAGE, event.org_id, sent)
        answer = json_object(response)
        if response.status_code != HTTPStatus.ACCEPTED or answer.get("transaction_id") != event.transaction_id:
            raise invalid(response)
        warning = str(answer.get("warning") or "")
        key = (event.org_id, event.event_code)
        if warning and key not in self._warned and len(self._warned) < MAX_ENTRIES:
            self._warned.add(key)
            log_event(
                logging.WARNING, "usage_warning", org_id=event.org_id, event_code=event.event_code, warning=warning
            )
        return warning

    async def get_subscription(self, org_id: str) -> OrgSubscription | None:
        """Return the org's subscription; None = it has none. Meterbridge's answer is at most 15 s old.

        Raises:
            BillingError: the answer is not known.
        """
        response = await self._get_or_none(SUBSCRIPTION, org_id)
        return None if response is None else subscription_of(response)

    async def get_current_usage(self, org_id: str) -> CurrentUsage | None:
        """Return the usage that Lago counts in the org's running billing period; None = the org has no active
        subscription.

        Raises:
            BillingError: the answer is not known.
        """
        response = await self._get_or_none(CURRENT_USAGE, org_id)
        return None if response is None else usage_of(response)

    async def get_limits(self, org_id: str) -> dict[str, int]:
        """Return the org's limits by name, its own before those of its plan; `{}` = none. See docs/sdk-reference.md,
        Limits.

        Raises:
            BillingError: the answer is not known.
        """
        response = await self._get_or_none(LIMITS, org_id)
        return {} if response is None else limits_of(response, "effective")

    async def subscribe_org_to_plan(
        self,
        org_id: str,
        plan_code: str,
        org_name: str = "",
        email: str = "",
        user_id: str | None = None,
        *,
        billing_time: str = "anniversary",
        subscription_at: str | None = None,
    ) -> OrgSubscription:
        """Make the org's customer and subscription if they are missing; change the plan if the org is on another plan.

        Meterbridge keeps subscription ids, so this is safe to repeat and never makes a second subscription.

        Args:
            plan_code: a plan that Lago has.
            org_name, email: of a new customer.
            user_id: who made the org; it is kept in the customer's metadata.
            billing_time: `anniversary` or `calendar`.
            subscription_at: when it begins, ISO 8601; None = now.

        Raises:
            BillingRejected: `plan_not_found` or another reason of docs/errors-api.md.
            BillingUnavailable: it is unknown whether the change was made; repeating the same call is safe.
        """
        body = {
            "plan_code": plan_code,
            "org_name": org_name,
            "email": email,
            "user_id": user_id or "",
            "billing_time": billing_time,
            **({} if subscription_at is None else {"subscription_at": subscription_at}),
        }
        try:
            response = await self._transport.request(SETUP, org_id, body)
        except BillingRejected as error:
            if error.reason != OTHER_PLAN:
                raise
            response = await self._transport.request(CHANGE_PLAN, org_id, {"plan_code": plan_code})
        return subscription_of(response, "subscription")

    async def _get_or_none(self, route: Route, org_id: str) -> httpx.Response | None:
        """Return the response, or None if Meterbridge itself says that the org or the subscription does not exist."""
        try:
            return await self._transport.request(route, org_id)
        except BillingRejected as error:
            if error.status == HTTPStatus.NOT_FOUND and error.reason in {NO_SUBSCRIPTION, UNKNOWN_ORG}:
                return None
            raise


def api_call_properties(endpoint: str, user_id: str | None, tokens: int, model: str | None) -> dict[str, Value]:
    """Properties of an event on the metric `api_call`.

    Raises:
        BillingRejected: `bad_property`: `tokens` is not a whole number of 0 or more.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise BillingRejected("bad_property", "tokens is not a whole number of 0 or more")
    return {"endpoint": endpoint, "user_id": user_id, "tokens": tokens, "model": model}
