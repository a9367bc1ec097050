"""Delivers the events of a Lago organisation: posts them, waits for access, or gives them up (docs/adr/0049)."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from schemas.errors import TopicProblem
from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.restamp import RestampDecision
from streams.core.mapping.held_reasons import UNKNOWN_ORGANIZATION
from streams.delivery.lago_port import PostRecord

#: Reason of a dead letter: the settings say that its organisation is closed.
ORGANIZATION_CLOSED: Final = "organization_closed"


class EventDelivery(Protocol):
    """The interface of `streams.delivery.engine.Delivery` and of its replacements for organisations without posts."""

    async def deliver(
        self,
        items: Sequence[Item],
        on_post: Callable[[PostRecord], None],
        judge: Callable[[bytes], RestampDecision],
        others_wait: Callable[[], bool],
    ) -> list[EventOutcome]:
        """See `streams.delivery.engine.Delivery.deliver`."""


class UnknownOrganization:
    """An organisation that is missing in the settings of this process. Its events stay in their topic."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def deliver(self, items: Sequence[Item], *_: object) -> list[EventOutcome]:
        """Raises: TopicProblem: `unknown_organization`, if there is an event."""
        if items:
            raise TopicProblem(UNKNOWN_ORGANIZATION, f"{self._name} is not in LAGO_ORGANIZATIONS here")
        return []


class ClosedOrganization:
    """An organisation that the settings mark as closed. Its events become dead letters, and nothing is posted."""

    async def deliver(self, items: Sequence[Item], *_: object) -> list[EventOutcome]:
        """Return a dead letter for each event. It says whether the event may have been posted before."""
        detail = "LAGO_ORGANIZATIONS says that it is closed"
        return [EventOutcome("dead", ORGANIZATION_CLOSED, detail, 0, maybe_sent=item.resent) for item in items]
