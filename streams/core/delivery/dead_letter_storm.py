"""Decides whether Lago refuses events because of the events or because of a fault in Lago; pure, shared by a process.

A single bad event fails among other events that are accepted. If events of several subscriptions fail for one reason
and none is accepted in between, they have a common cause: Lago has lost its settings, or another server answers. Then
the events are held, and the next accepted event decides (ADR 0025).
"""

from collections.abc import Collection
from typing import Final

#: From this number of subscriptions on, the refusals are doubted: their events failed for one reason, and none was
#: accepted in between.
ALIKE: Final = 3
#: Failures further apart than this are unrelated, seconds.
WITHIN_S: Final = 60.0


class Deaths:
    """The refused events since Lago last accepted one.

    Attributes:
        accepted: number of answers in which Lago accepted an event, or named single events.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self._recent: dict[str, dict[str, float]] = {}

    def some_passed(self) -> None:
        """Register that Lago accepted an event, knew it already, or found no fault in it."""
        self.accepted += 1
        self._recent.clear()

    def doubtful(self, died: Collection[tuple[str, str]], now: float) -> bool:
        """Decide whether the refusals in `died` are doubted. Refusals that are not doubted are remembered.

        Args:
            died: (reason, subscription) of all events in one answer.
            now: seconds of a monotonic clock.
        """
        known: dict[str, dict[str, float]] = {}
        for reason, subscription in died:
            known.setdefault(reason, self._lately(reason, now))[subscription] = now
        if any(len(subscriptions) >= ALIKE for subscriptions in known.values()):
            return True
        self._recent.update(known)
        return False

    def _lately(self, reason: str, now: float) -> dict[str, float]:
        recent = self._recent.get(reason, {})
        return {subscription: at for subscription, at in recent.items() if now - at <= WITHIN_S}
