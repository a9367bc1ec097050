"""What keeps the orgs' records as Lago has them: its webhooks as they come, and a poll for those that never came."""

from connectors.api.lago_webhooks import LagoWebhooks
from connectors.billing.event_state_reader import ReceiptsFollower
from connectors.billing.lago_webhooks import WebhookHandlers
from connectors.billing.org_sync import POLL_EVERY_S, OrgSynchroniser
from connectors.billing.unbillable_events import UnbillableEvents
from connectors.config.connections import all_revealed
from connectors.config.settings import Settings
from connectors.http.endpoint import Endpoint
from connectors.kafka.checked_producer import CheckedProducer
from connectors.processes.account_tables import AccountTables, now_us
from connectors.telemetry.metrics import Metrics
from schemas.topics import TopicNames


class LagoSync:
    """The watch of one process; see `OrgSynchroniser` and `LagoWebhooks`."""

    def __init__(
        self,
        settings: Settings,
        gate: CheckedProducer,
        metrics: Metrics,
        books: AccountTables,
        receipts: ReceiptsFollower,
    ) -> None:
        topics = TopicNames.with_prefix(settings.topic_prefix)
        secrets = all_revealed(settings.lago_webhook_secret)
        prefixes = tuple(settings.org_id_prefixes)
        self.truth = OrgSynchroniser(
            books.customers.table,
            books.orgs.table,
            books.org_records,
            books.lago,
            now_us=now_us,
            is_org=lambda org_id: org_id.startswith(prefixes),
        )
        refusals = UnbillableEvents(receipts, gate, topics.receipts, metrics.not_billed, now_us)
        handlers = WebhookHandlers(self.truth, refusals)
        self._webhooks = LagoWebhooks(handlers, secrets, gate, topics.deliveries, metrics.lago_told, now_us)

    def endpoints(self) -> list[Endpoint]:
        """Where Lago sends them."""
        return self._webhooks.endpoints()

    async def work(self) -> None:
        """For ever: the poll."""
        await self.truth.poll_every(POLL_EVERY_S)
