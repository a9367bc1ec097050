"""Whether Lago refuses events because of the events, or because something is wrong with Lago; pure, shared by a
process.

A single bad event fails among others that pass. Where events of several subscriptions fail for one reason and nothing
passes between them, they have a common cause: a Lago that lost its settings, or a server in its place. Then they are
held, and the next event that passes decides (ADR 0025).
"""

from collections.abc import Collection
from typing import Final

#: The number of subscriptions whose events fail for one reason, with none accepted in between, from which the refusals
#: are doubted.
ALIKE: Final = 3
#: Failures further apart than this are unrelated, seconds.
WITHIN_S: Final = 60.0


class Deaths:
    """The refused events since Lago last accepted one.

    Attributes:
        accepted: answers so far by which Lago accepted an event, or told one event apart from others.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self._recent: dict[str, dict[str, float]] = {}

    def some_passed(self) -> None:
        """Lago accepted an event, knew it already, or found no fault with it."""
        self.accepted += 1
        self._recent.clear()

    def doubtful(self, died: Collection[tuple[str, str]], now: float) -> bool:
        """Whether the refusals in `died` are doubted; those that are not are remembered.

        Args:
            died: (reason, subscription) of all events of one answer.
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
