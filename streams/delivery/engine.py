"""Posts events to Lago until each one has an outcome; holds, splits and confirms, and never gives up by itself.

streams/core/delivery/verdicts.py interprets an answer; this module acts on it. Only the breaker is kept between two
deliveries. So after a cancellation there are only posts that were already made. The next owner of the partition marks
their events as `resent`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from schemas.errors import MeterbridgeError
from schemas.records import LagoEvent
from streams.core.delivery.backoff import RetryPolicy
from streams.core.delivery.batches import EventBatch, EventOutcome, Item, Kind, body_of, pack, rounds, subscription_of
from streams.core.delivery.circuit_breaker import Breaker, State
from streams.core.delivery.rate_limiter import AdaptiveRateLimiter
from streams.core.delivery.restamp import Judge, RestampDecision, moved_from
from streams.core.delivery.verdicts import (
    DETAIL_CHARS,
    Delivered,
    ErrorKind,
    EventError,
    HttpResponse,
    RefusedEvents,
    RetryLater,
    SplitBatch,
    Verdict,
    lookup_failed,
    same_event,
)
from streams.delivery.lago_port import LagoEventsApi, LagoPort, PostRecord, error_of

__all__ = ["Delivery", "EventOutcome", "HttpResponse", "Item", "LagoEventsApi"]

#: The most events in a probe.
PROBE_EVENTS = 10


def _unwatched(_posted: PostRecord) -> None:
    """Ignore posts, if no one records them."""


def _as_it_is(value: bytes) -> RestampDecision:
    """Post each event unchanged."""
    return RestampDecision(value)


class Delivery:
    """Posts events through one breaker and one bound on requests in flight; both may be shared.

    Args:
        concurrency, clock, on_request, log_fields: see `LagoPort`.
        resend_is_safe: whether Lago's store refuses or merges a repeat. If it does not (ClickHouse without
            deduplication), an event that may be stored already is looked up before it is posted again. That store shows
            an event late, so a repeat is then unlikely, but possible.
        batches_are_whole: whether a refused batch stores nothing. Before Lago v1.39.0 it may store a part.
        posts, looks: rate limiters, if other code shares them or passes answers to them.
    """

    def __init__(
        self,
        poster: LagoEventsApi,
        *,
        concurrency: asyncio.Semaphore,
        breaker: Breaker,
        policy: RetryPolicy,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        on_request: Callable[[str, str, int, float], None],
        batch_size: int = 100,
        resend_is_safe: Callable[[], bool] = lambda: True,
        batches_are_whole: Callable[[], bool] = lambda: True,
        posts: AdaptiveRateLimiter | None = None,
        looks: AdaptiveRateLimiter | None = None,
        log_fields: Mapping[str, str] | None = None,
    ) -> None:
        paces = posts or AdaptiveRateLimiter(), looks or AdaptiveRateLimiter()
        self.wire = LagoPort(
            poster, concurrency, breaker, clock, sleep, on_request, *paces, log_fields=log_fields or {}
        )
        self.policy = policy
        self.resend_is_safe = resend_is_safe
        self.batches_are_whole = batches_are_whole
        self._batch_size = batch_size

    async def deliver(
        self,
        items: Sequence[Item],
        on_post: Callable[[PostRecord], None] = _unwatched,
        judge: Judge = _as_it_is,
        others_wait: Callable[[], bool] = lambda: False,
    ) -> list[EventOutcome]:
        """Deliver the items; return their outcomes in the same order. This waits as long as Lago does not answer.

        Before each post `judge` decides what to post for an event. If its decision changes and the event may have been
        posted before, Lago is asked for the event first. If Lago has it, it is delivered. The same applies to an item
        that may have been posted `elsewhere`. Equal transaction ids are posted one after the other, never in one batch.
        `on_post` is called after every post. An `ExceptionGroup` is a bug.

        Args:
            others_wait: whether more events could be delivered together with these. If all of these fail, either the
                events or Lago are the cause, and only other events can show which.

        Returns:
            An empty list = `items` must be delivered again together with the waiting events; they may have been sent.
        """
        run = _Run(self, items, on_post, judge, others_wait)
        for number, positions in enumerate(rounds([item.transaction_id for item in items])):
            if number:  # the previous round has posted these ids
                run.compared.update(positions)
            suspects = [position for position in positions if items[position].suspect]
            others = [position for position in positions if not items[position].suspect]
            await run.settle([*pack(suspects, items, self._batch_size), *pack(others, items, self._batch_size)])
            if run.given_back:
                return []
        return [run.outcomes[position] for position in range(len(items))]


class _Run:
    """One delivery: the state of each item, by position.

    Attributes:
        compared: items for which a known id in Lago proves nothing, so that Lago's event is compared.
        given_back: whether the batch goes back to its queue, to be tried again with later events that may show the
            cause.
    """

    def __init__(
        self,
        delivery: Delivery,
        items: Sequence[Item],
        on_post: Callable[[PostRecord], None],
        judge: Judge,
        others_wait: Callable[[], bool],
    ) -> None:
        self.given_back = False
        self.outcomes: dict[int, EventOutcome] = {}
        self.compared = {position for position, item in enumerate(items) if item.compare}
        self._wire = delivery.wire
        self._policy = delivery.policy
        self._delivery = delivery
        self._items = items
        self._on_post = on_post
        self._judge_now = judge
        self._posted = [RestampDecision(item.value) for item in items]
        self._others_wait = others_wait
        self._maybe_sent = [item.resent or item.compare for item in items]
        #: Those of them of which no answer said whether Lago stored them. A requeued event is compared, but if Lago has
        #: refused each post, Lago does not have it.
        self._unknown = {position for position, item in enumerate(items) if item.resent}
        self._elsewhere = {position for position, item in enumerate(items) if item.elsewhere}
        self._attempts = [0] * len(items)
        self._group = asyncio.TaskGroup()

    async def settle(self, batches: Sequence[list[int]]) -> None:
        """Wait until every member of `batches` (disjoint positions) has its outcome."""
        self._group = asyncio.TaskGroup()
        async with self._group:
            for members in batches:
                self._start(EventBatch(members, family=object()))

    def _start(self, batch: EventBatch) -> None:
        self._group.create_task(self._settle(batch))

    async def _settle(self, batch: EventBatch) -> None:
        while batch.members and not self.given_back:
            match await self._attempt(batch):
                case Delivered():
                    for position in list(batch.members):
                        self._finish(batch, position, "delivered", "accepted")
                case RefusedEvents(marks):
                    await self._conclude(batch, marks)
                case SplitBatch():
                    self._start(batch.cut(len(batch.members) // 2))
                case RetryLater() as hold:
                    await self._hold(batch, hold)

    async def _attempt(self, batch: EventBatch) -> Verdict:
        """Post once, and report the result to the breaker."""
        async with self._wire.admitted(batch):
            probes = self._wire.breaker.probes(batch)
            verdict = await self._probe(batch) if probes else await self._post(batch)
            if batch.members and not (isinstance(verdict, SplitBatch) and not verdict.by_lago):
                self._wire.settled(batch, verdict if isinstance(verdict, RetryLater) else None)
        return verdict

    async def _probe(self, batch: EventBatch) -> Verdict:
        if not await self._wire.poster.healthy():
            return RetryLater("unhealthy", "Lago's health check fails", wait_s=self._policy.health_wait_s())
        if len(batch.members) > PROBE_EVENTS:
            self._start(batch.cut(PROBE_EVENTS))
        return await self._post(batch)

    async def _post(self, batch: EventBatch) -> Verdict:
        unsure = batch.members if not self._delivery.resend_is_safe() else self._elsewhere.intersection(batch.members)
        if unsure and (hold := await self._confirm_earlier(batch, list(unsure))):
            return hold
        self._elsewhere.difference_update(unsure)
        if hold := await self._judge_again(batch):
            return hold
        if not batch.members:
            return Delivered()
        for position in batch.members:
            self._attempts[position] += 1
        body = body_of(self._posted[position].value for position in batch.members)
        ids = [self._items[position].transaction_id for position in batch.members]
        verdict, status, seconds = await self._wire.post(body, ids)
        attempt = self._attempts[batch.members[0]]
        self._on_post(PostRecord(len(ids), ids[0], ids[-1], attempt, status, error_of(verdict), seconds))
        if isinstance(verdict, RetryLater) and verdict.unknown:
            for position in batch.members:
                self._maybe_sent[position] = True
                self._unknown.add(position)
        return self._doubted(batch, verdict)

    def _doubted(self, batch: EventBatch, verdict: Verdict) -> Verdict:
        """Hold the batch if all of its events fail for one reason and no other batch is accepted
        (streams/core/delivery/dead_letter_storm.py).
        """
        deaths = self._wire.breaker.deaths
        if isinstance(verdict, RetryLater | SplitBatch):
            return verdict
        died = [] if isinstance(verdict, Delivered) else self._died(batch, verdict)
        if len(died) < len(batch.members):
            deaths.some_passed()
            return verdict
        if 0 <= batch.doubted < deaths.accepted or not deaths.doubtful(died, self._wire.clock()):
            return verdict
        if batch.doubted < 0:
            batch.doubted = deaths.accepted
        return RetryLater("dying_alike", f"all refused: {error_of(verdict)}", opens=True, isolates=True)

    def _died(self, batch: EventBatch, marked: RefusedEvents) -> list[tuple[str, str]]:
        """Return (reason, subscription) of the members that Lago refuses because of a fault."""
        faults = [
            (batch.members[index], mark) for index, mark in marked.marks.items() if mark.fate is not ErrorKind.EXISTS
        ]
        return [(mark.reason, subscription_of(self._items[position].value)) for position, mark in faults]

    async def _judge_again(self, batch: EventBatch) -> RetryLater | None:
        """Decide what to post for each member; finish those that need no post, or must not be posted."""
        judged = {position: self._judge_now(self._items[position].value) for position in batch.members}
        changed = [position for position, now in judged.items() if now != self._posted[position]]
        if hold := await self._confirm_earlier(batch, changed):
            return hold
        for position in changed:
            if position in self.outcomes:
                continue
            if refused := judged[position].refused:
                self._finish(batch, position, "dead", refused, "no invoice would count it in dollars")
            else:
                self._posted[position] = judged[position]
        return None

    async def _confirm_earlier(self, batch: EventBatch, among: Sequence[int]) -> RetryLater | None:
        """Finish the members that an earlier post has stored."""
        for position in [position for position in among if self._maybe_sent[position]]:
            try:
                stored = await self._wire.look_up(self._items[position].transaction_id)
            except MeterbridgeError as error:
                return lookup_failed(error.reason, error.detail)
            if stored is not None:
                self._compare(batch, position, stored)
        return None

    async def _conclude(self, batch: EventBatch, marks: Mapping[int, EventError]) -> None:
        """Finish the members that Lago named. If a look-up fails, they are posted and named again."""
        named = [(batch.members[index], mark) for index, mark in marks.items()]
        self._unknown.update(position for position, mark in named if mark.fate is ErrorKind.EXISTS)
        for position, mark in named:
            if mark.fate is ErrorKind.EXISTS and not self._maybe_sent[position]:
                # No post of ours explains the repeat, so only a comparison shows whether Lago has this event. That stays
                # so if the look-up fails.
                self._maybe_sent[position] = True
                self.compared.add(position)
        if not self._delivery.batches_are_whole() and any(mark.fate is ErrorKind.EXISTS for mark in marks.values()):
            for position in set(batch.members).difference(position for position, _ in named):
                self._maybe_sent[position] = True
                self._unknown.add(position)
        async with self._wire.concurrency:
            try:
                for position, mark in named:
                    await self._judge(batch, position, mark)
                return
            except MeterbridgeError as error:
                hold = lookup_failed(error.reason, error.detail)
        self._wire.settled(batch, hold)
        await self._hold(batch, hold)

    async def _judge(self, batch: EventBatch, position: int, mark: EventError) -> None:
        maybe_sent = self._maybe_sent[position]
        if mark.fate is ErrorKind.HEALS:
            return self._finish(batch, position, "retry", mark.reason, mark.detail)
        if mark.fate is ErrorKind.EXISTS and maybe_sent and position not in self.compared:
            return self._finish(batch, position, "delivered", mark.reason)
        if mark.fate is ErrorKind.DEAD and not maybe_sent:
            return self._finish(batch, position, "dead", mark.reason, mark.detail)
        stored = await self._wire.look_up(self._items[position].transaction_id)
        if stored is not None:
            return self._compare(batch, position, stored)
        if mark.fate is ErrorKind.DEAD:
            return self._finish(batch, position, "dead", mark.reason, mark.detail)
        return self._finish(batch, position, "retry", "unconfirmed", "refused as a repeat, yet not found")

    def _compare(self, batch: EventBatch, position: int, stored: LagoEvent) -> None:
        value = self._items[position].value
        moved = moved_from(stored, value)
        if moved or same_event(stored, value):
            self._posted[position] = moved or RestampDecision(value)
            self._finish(batch, position, "delivered", "confirmed")
        else:
            self._finish(batch, position, "dead", "id_conflict", "Lago holds another event under this id")

    async def _hold(self, batch: EventBatch, hold: RetryLater) -> None:
        """Wait, or split the batch if it may be the cause itself."""
        batch.holds += 1
        if hold.isolates:
            if batch.fails == 0:
                batch.passed = self._wire.breaker.successes
            batch.fails += 1
            if self._is_suspect(batch, hold) and await self._is_lago_well(batch):
                return self._isolate(batch, hold)
            if batch.fails >= self._policy.isolate_after and not self.outcomes and self._others_wait():
                self.given_back = True
                return None
        await self._wire.sleep(self._policy.wait_s(batch.holds) if hold.wait_s is None else hold.wait_s)
        return None

    def _is_suspect(self, batch: EventBatch, hold: RetryLater) -> bool:
        """Return whether the batch may be the cause: others were accepted, or it failed very often. The halves of a
        large batch are evidence for each other.
        """
        is_large = len(batch.members) > PROBE_EVENTS and self._wire.breaker.state is State.CLOSED
        if is_large or self._others_passed(batch):
            return batch.fails >= self._policy.isolate_after
        return hold.alone and batch.fails >= self._policy.alone_after

    async def _is_lago_well(self, batch: EventBatch) -> bool:
        """Return whether Lago reports that it is healthy although it accepts nothing. If it does not, the breaker
        opens, and no event is given up.
        """
        if len(batch.members) > 1 or self._others_passed(batch) or await self._wire.poster.healthy():
            return True
        self._wire.settled(batch, RetryLater("unhealthy", "Lago's health check fails", opens=True))
        return False

    def _others_passed(self, batch: EventBatch) -> bool:
        return self._wire.breaker.successes > batch.passed

    def _isolate(self, batch: EventBatch, hold: RetryLater) -> None:
        if len(batch.members) == 1:
            return self._finish(batch, batch.members[0], "retry", hold.reason, hold.detail)
        if len(batch.members) > PROBE_EVENTS:
            batch.holds = 0  # many events wait for this batch, so its waits stay short
        rest = batch.cut(len(batch.members) // 2)
        if not self._others_passed(batch):
            # If both halves fail and nothing is accepted, two unrelated batches have failed.
            self._wire.breaker.taken_apart(batch.family)
            batch.family, rest.family = object(), object()
        for part in (batch, rest):
            part.fails = self._policy.isolate_after - 1
            part.passed = self._wire.breaker.successes
        return self._start(rest)

    def _finish(self, batch: EventBatch, position: int, kind: Kind, reason: str, detail: str = "") -> None:
        maybe_sent = kind == "retry" and position in self._unknown
        attempts = self._attempts[position]
        moved = self._posted[position] if kind == "delivered" else RestampDecision(b"")
        compare = maybe_sent and position in self.compared
        outcome = kind, reason, detail[:DETAIL_CHARS], attempts, maybe_sent
        self.outcomes[position] = EventOutcome(*outcome, moved.timestamp, moved.subscription, compare)
        batch.members.remove(position)
