"""Runs the canary: posts a call every interval, and looks for it at Lago. The rules are in
streams/core/delivery/canary.py.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from connectors.lago.errors import LagoIntegrationError
from connectors.lago.responses import Subscription
from schemas.errors import Rejected
from schemas.moments import SECOND_US
from schemas.money import plain
from schemas.records import LagoEvent
from streams.core.delivery.canary import (
    BILLED,
    BILLED_TWICE,
    LOST,
    NOT_BILLED,
    NOT_POSTED,
    NOT_SEEN,
    WRONG_AMOUNT,
    CanaryCall,
    CanaryPlan,
    CanaryWatch,
    Outcome,
)

#: Seconds between two ticks, and between two requests to Lago for a call that is not there. While Lago does not answer,
#: the second one doubles up to `SELDOM_S`. For a call that was due long ago, Lago is asked every `SELDOM_S`.
LOOK_S: Final = 1.0
ASK_S, SELDOM_S = 2.0, 60.0
#: The most events that are read at a time. An hour has about sixty.
MOST: Final = 1000

_log = structlog.get_logger(__name__)


class CallPoster(Protocol):
    """Posts a call, see `CanaryPost`."""

    async def post(self, call: CanaryCall, now_us: int) -> str:
        """Post a call; return why the ingress did not accept it, `""` = it did."""


class Lago(Protocol):
    """The requests of the canary to Lago, see `LagoClient`."""

    async def subscriptions(self, external_customer_id: str = "") -> list[Subscription]:
        """Return the active subscriptions of a customer. Raises: LagoIntegrationError."""

    async def events_between(
        self, external_subscription_id: str, code: str, from_us: int, until_us: int, most: int
    ) -> list[LagoEvent]:
        """Return the events of a subscription. Raises: LagoIntegrationError."""


class Place(NamedTuple):
    """The org and the metric that bill the canary's calls.

    Fields:
        org: id of the customer in Lago.
        code: code of the metric of usage.
        copies_count: whether Lago bills a second copy of an event, as it does with ClickHouse without deduplication.
    """

    org: str
    code: str
    copies_count: bool = True


class Canary:
    """One canary, which bills calls to one subscription.

    Args:
        now_us: microseconds since 1970 UTC.
        on_posted: called when the ingress has taken a call.
        on_outcome: called with the outcome of a call, and again if the call gets a worse outcome later.
    """

    def __init__(
        self,
        plan: CanaryPlan,
        poster: CallPoster,
        lago: Lago,
        place: Place,
        now_us: Callable[[], int],
        on_posted: Callable[[], None] = lambda: None,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self.subscription = ""
        self._plan = plan
        self._poster = poster
        self._lago = lago
        self._place = place
        self._now_us = now_us
        self._on_posted = on_posted
        self._on_outcome = on_outcome
        self._watch = CanaryWatch()
        self._next_us = plan.next_us(now_us())
        self._ask_us, self._rarely_us, self._pause_s = 0, 0, ASK_S
        self.refusal = ""

    async def find_subscription(self) -> None:
        """Find the canary's subscription in Lago.

        Raises:
            Rejected: `no_canary`: the org has no active subscription.
            LagoIntegrationError
        """
        found = await self._lago.subscriptions(self._place.org)
        if not found:
            sentence = f"Lago has no subscription of {self._place.org}: run `meterbridge canary setup` first"
            raise Rejected("no_canary", sentence)
        self.subscription = found[0].external_id

    async def work(self) -> None:
        """Bill a call every interval, until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(LOOK_S)

    async def tick(self) -> None:
        """Do all that is due now: post a call, ask Lago, and report outcomes."""
        now_us = self._now_us()
        if now_us >= self._next_us:
            self._next_us = self._plan.next_us(now_us)
            call = self._plan.call(self._next_us - self._plan.interval_us)
            if self._watch.wants(call, self._plan.interval_us):
                await self._post(call)
        rarely = self._watch.may_come() and now_us >= self._rarely_us
        if now_us >= self._ask_us and (rarely or self._watch.looks(now_us)):
            self._rarely_us = now_us + round(SELDOM_S * SECOND_US)
            await self._look()
        await self._tell(self._watch.overdue(self._now_us()))

    async def once(self, name: str) -> Outcome:
        """Post one call, whose id ends with `name`, and wait until it is billed or overdue."""
        ended_us = self._now_us() // 1000 * 1000
        call = self._plan.call(ended_us, name)
        if (refused := await self._post(call)) is not None:
            return refused
        while True:
            now_us = self._now_us()
            if self._watch.looks(now_us) and now_us >= self._ask_us and (seen := await self._look()):
                return seen[-1]
            if overdue := self._watch.overdue(self._now_us()):
                return overdue[-1]
            await asyncio.sleep(LOOK_S)

    async def _post(self, call: CanaryCall) -> Outcome | None:
        """Post a call; return the outcome if the ingress has not accepted it."""
        posted_us = self._now_us()
        self.refusal = await self._poster.post(call, posted_us)
        if not self.refusal:
            self._on_posted()
            self._watch.posted(call, posted_us)
            return None
        outcome = self._watch.not_posted(call)
        await self._tell([outcome])
        return outcome

    async def _look(self) -> list[Outcome]:
        """Ask Lago for the events of all watched calls; return the new outcomes."""
        since_us, now_us = self._watch.since_us(), self._now_us()
        if since_us is None:
            return []
        try:
            events = await self._lago.events_between(
                self.subscription, self._place.code, since_us, now_us + SECOND_US, MOST
            )
        except LagoIntegrationError as error:
            self._watch.unanswered()
            self._ask_us = now_us + round(self._pause_s * SECOND_US)
            self._pause_s = min(2 * self._pause_s, SELDOM_S)
            _log.warning("canary_not_seen", error=str(error))
            return []
        self._pause_s = ASK_S
        self._ask_us = now_us + round(ASK_S * SECOND_US)
        outcomes = self._watch.seen(self._counted(events), self._now_us())
        await self._tell(outcomes)
        return outcomes

    def _counted(self, events: Sequence[LagoEvent]) -> Sequence[LagoEvent]:
        """Return the events that Lago bills."""
        if self._place.copies_count:
            return events
        return list({event.transaction_id: event for event in events}.values())

    async def _tell(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._on_outcome(outcome)
            good = outcome.result == BILLED and not outcome.late
            _log.log(
                logging.INFO if good else logging.WARNING,
                "canary_result",
                call=outcome.call.id,
                result=outcome.result,
                late=outcome.late,
                waited_s=round(outcome.wait_us / SECOND_US, 1),
            )
        if any(outcome.result == NOT_BILLED for outcome in outcomes):
            try:
                await self.find_subscription()  # the subscription may have started again, under another id
            except (LagoIntegrationError, Rejected) as error:
                _log.warning("canary_not_found", error=str(error))


def sentence_of(outcome: Outcome, subscription: str, refusal: str = "") -> str:
    """Return the outcome of a call in one sentence."""
    call, seconds = outcome.call, f"{outcome.wait_us / SECOND_US:.1f} s"
    owed = f"{plain(call.owed_cents)} cents"
    within = f"{(call.due_us - call.ended_us) // SECOND_US} s"
    return {
        BILLED: f"The call {call.id} was billed {seconds} after its post: {owed} on the subscription {subscription}, as owed.",
        NOT_POSTED: f"The call {call.id} was not posted: {refusal}.",
        NOT_BILLED: f"The call {call.id} was not billed within {within}: Lago has no event of it on the subscription {subscription}.",
        NOT_SEEN: f"It is not known whether the call {call.id} was billed within {within}: Lago did not answer.",
        WRONG_AMOUNT: f"The call {call.id} was billed with a wrong amount on the subscription {subscription}: {owed} are owed.",
        LOST: f"The call {call.id} is not at Lago an hour after it was due, and later calls are.",
        BILLED_TWICE: f"The call {call.id} was billed twice on the subscription {subscription}.",
    }[outcome.result]
