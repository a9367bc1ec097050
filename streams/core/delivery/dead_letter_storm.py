"""Whether events die of themselves, or of what has become of Lago: pure, shared by all that posts in a process.

One bad event dies among others that pass. Where events of several subscriptions die alike and nothing passes
between them, something is wrong that they have in common: a Lago that lost its settings, a server that imitates
it. Then they are held, and what passes next decides (ADR 0025).
"""

from collections.abc import Collection
from typing import Final

#: Subscriptions whose events die for one reason, with nothing accepted between them, before that is doubted.
ALIKE: Final = 3
#: Deaths further apart than this have nothing to do with each other, seconds.
WITHIN_S: Final = 60.0


class Deaths:
    """The deaths since Lago last took an event.

    Attributes:
        accepted: answers by which Lago took an event, or told one apart from others, so far.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self._recent: dict[str, dict[str, float]] = {}

    def some_passed(self) -> None:
        """Lago took an event, knew it, or found no fault with it."""
        self.accepted += 1
        self._recent.clear()

    def doubtful(self, died: Collection[tuple[str, str]], now: float) -> bool:
        """Whether `died`, (reason, subscription) of all events of one answer, are too many that die alike.

        Those of an answer that is not doubted are remembered. `now`: seconds of a monotonic clock.
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
