"""Records which transaction_ids were sent with two different contents, accepted or not."""

from collections.abc import Iterable

from connectors.lago_sandbox.store import EventLog
from connectors.lago_sandbox.stored_event import Event


class Offers:
    """Compares every event that is sent with earlier events of its id."""

    def __init__(self, log: EventLog) -> None:
        self.conflicts: set[str] = set()
        self._log = log
        self._waiting: dict[str, Event] = {}  # sent, not accepted so far

    def note(self, events: Iterable[Event]) -> list[str]:
        """Remember these events; return the ids that conflict for the first time."""
        links = []
        for event in events:
            earlier = (*self._log.copies(event.transaction_id), *self._waiting_for(event))
            if event.transaction_id not in self.conflicts and not all(map(event.same_content, earlier)):
                self.conflicts.add(event.transaction_id)
                links.append(event.transaction_id)
            if not earlier:
                self._waiting[event.transaction_id] = event
        return links

    @property
    def unaccepted(self) -> int:
        """Return how many ids were sent and never accepted."""
        return len(self._waiting)

    def accepted(self, events: Iterable[Event]) -> None:
        """Forget these events: the log has them now."""
        for event in events:
            self._waiting.pop(event.transaction_id, None)

    def _waiting_for(self, event: Event) -> tuple[Event, ...]:
        waiting = self._waiting.get(event.transaction_id)
        return () if waiting is None else (waiting,)
