"""Rules that make the sandbox fail on purpose: a rule says for which requests, how often and for how long."""

from collections.abc import Callable, Collection
from random import Random
from typing import Any, Literal

import msgspec

Kind = Literal[
    "status",
    "timeout_after_accept",
    "drop",
    "drop_after_accept",
    "slow",
    "garbage_200",
    "truncate",
    "trickle",
    "poison",
    "lose",
]


class Rule(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One fault.

    Fields:
        kind: `status`: answer with `status`, store nothing. `drop`: close the connection without an answer, store
            nothing. `drop_after_accept`: store, then close it. `timeout_after_accept`: store, stay silent for
            `seconds`, then close it. `slow`: handle after `seconds`. `garbage_200`: 200 with a body that is not JSON;
            it stores only with `stored`. `truncate`: store, send half of the answer and close. `trickle`: store, then
            send the answer byte by byte over `seconds`. `poison`: as `status`, for requests that contain one event.
            `lose`: answer as if the events were stored, and store none of them.
        status, headers, body: of the answer of `status` and `poison`; the body is any JSON.
        probability: of firing, each time the rule fits.
        count: maximum number of times that it fires; None = no limit.
        seconds: of `slow`, `trickle` and `timeout_after_accept`.
        duration_s: how long after it was set the rule ends, by the sandbox's clock.
        transaction_id: of the poisoned event.
        index: instead of `transaction_id`: the event at this place of the next batch that is long enough becomes the
            poisoned one.
        path, method: the prefix of the path, and the verb (`*` = any) that it applies to.
    """

    kind: Kind
    status: int = 500
    headers: dict[str, str] = {}
    body: Any = msgspec.UNSET
    probability: float = 1.0
    count: int | None = None
    seconds: float = 30.0
    duration_s: float | None = None
    transaction_id: str | None = None
    index: int | None = None
    stored: bool = False
    path: str = "/api/v1/events"
    method: str = "POST"


class FaultOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /__faults`: rules to append; a seed restarts the random numbers."""

    rules: list[Rule] = []
    seed: int | None = None


class _Armed(msgspec.Struct):
    rule: Rule
    until: float | None
    fired: int = 0
    poisoned: str | None = None


class Faults:
    """The active rules; the first that fits a request fires."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._armed: list[_Armed] = []
        self._chance = Random(0)

    def arm(self, order: FaultOrder) -> None:
        """Add rules after the active ones."""
        if order.seed is not None:
            self._chance.seed(order.seed)
        for rule in order.rules:
            until = None if rule.duration_s is None else self._clock() + rule.duration_s
            self._armed.append(_Armed(rule, until, poisoned=rule.transaction_id))

    def clear(self) -> None:
        """Remove every rule."""
        self._armed.clear()

    def draw(self, method: str, path: str, transaction_ids: Collection[str] = ()) -> Rule | None:
        """Return the rule that fires for this request; its firing is counted."""
        for armed in self._armed:
            if self._fits(armed, method, path, transaction_ids) and (
                armed.rule.probability >= 1 or self._chance.random() < armed.rule.probability
            ):
                armed.fired += 1
                return armed.rule
        return None

    def shown(self) -> list[dict[str, Any]]:
        """Return every rule with `fired`, and `ended` when it cannot fire again."""
        return [
            {**msgspec.to_builtins(armed.rule), "fired": armed.fired, "ended": self._ended(armed)}
            for armed in self._armed
        ]

    def _fits(self, armed: _Armed, method: str, path: str, transaction_ids: Collection[str]) -> bool:
        rule = armed.rule
        if self._ended(armed) or rule.method not in ("*", method) or not path.startswith(rule.path):
            return False
        if rule.kind != "poison":
            return True
        if armed.poisoned is None and rule.index is not None and rule.index < len(transaction_ids):
            armed.poisoned = list(transaction_ids)[rule.index]
        return armed.poisoned in transaction_ids

    def _ended(self, armed: _Armed) -> bool:
        spent = armed.rule.count is not None and armed.fired >= armed.rule.count
        return spent or (armed.until is not None and self._clock() >= armed.until)
