"""Removes impossible steps from a drawn history, and gives the worker its turns."""

from dataclasses import replace

from tests.model import history as h
from tests.model.history import DAY, HOUR, MINUTE, History
from tests.model.lives import start_of_month


def sound(steps: list[h.Step], *, awake: bool) -> History:
    """The history without impossible steps; `awake`: the worker ticks after every time at which something happened."""
    history: list[h.Step] = []
    state = _Books()
    earliest = 0
    for number, step in enumerate(steps):
        moment = max(step.at, earliest)
        ticks = isinstance(step, h.Tick)
        if not ticks:
            possible = state.possible(replace(step, at=moment))
            if possible is None:
                continue
            history.append(possible)
            moment = earliest = max(possible.at, earliest)
            following = steps[number + 1].at if number + 1 < len(steps) else h.ENDS
            ticks = awake and following >= moment + 3 * MINUTE
            moment += MINUTE
        if ticks:
            history.append(h.Tick(ticking(moment)))
            earliest = history[-1].at + MINUTE
    last = ticking((history[-1].at if history else 0) + DAY)
    end = (h.Away(last, False), *(h.Learnt(last, org, h.POLL) for org in h.ORGS[:1]), h.Tick(last), h.Tick(last + HOUR))
    return (*history, *end)


def ticking(moment: int) -> int:
    """The worker's next turn: not while a window's time and grace end."""
    return moment + 20 - moment % MINUTE + (MINUTE if moment % MINUTE > 10 else 0)


class _Books:
    """The state of Lago, and the time of the last change of each mapping."""

    def __init__(self) -> None:
        self._running: dict[str, h.Subscribed] = {}
        self._uncounted: set[str] = set()
        self._names: set[str] = set()
        self._changes: set[tuple[str, int]] = set()

    def possible(self, step: h.Step) -> h.Step | None:
        """The step in a possible form; None if there is none."""
        match step:
            case h.Mapped() | h.Unmapped():  # who pays for a customer changes once a moment
                return None if self._twice((step.customer, step.at)) else step
            case h.Subscribed():
                return self._subscribed(step)
            case h.Terminated():
                running = self._running.get(step.subscription)
                if running is None or running.org != step.org or running.at == step.at:  # none runs for no time
                    return None
                del self._running[step.subscription]
                # In the sandbox no invoice holds the second in which both a month begins and a subscription ends.
                step = replace(step, at=step.at + (step.at == start_of_month(step.at)))
                self._uncounted -= {step.subscription}
                self._uncounted |= {step.subscription} if step.slow else set()
                return step
            case h.Counted():
                waits = step.subscription in self._uncounted
                self._uncounted -= {step.subscription}
                return step if waits else None
        return step

    def _twice(self, change: tuple[str, int]) -> bool:
        twice = change in self._changes
        self._changes.add(change)
        return twice

    def _subscribed(self, step: h.Subscribed) -> h.Step | None:
        """A subscription id is used once, except the shared one: by one org after the other.

        Events that Lago stored under the id before it started again belong to the new life if their time is in the same
        second. The model decides when an event is stored, so each next life starts in a second of its own.
        """
        name, shared = step.subscription, step.number == h.SHARED
        if name in self._running or (name in self._names and not shared):
            return None
        if name in self._names:
            step = replace(step, at=step.at + 1)
        self._names.add(name)
        self._running[name] = step
        return replace(step, days_ago=0) if shared else step
