"""`meterbridge webhooks`: send a test message to the endpoints of outgoing webhooks."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import typer

from connectors.cli.base import say, table_of_lines
from connectors.cli.optional_database import optional_database
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.config.connections import all_revealed
from connectors.config.http_client import HttpClient
from connectors.config.settings import Settings
from connectors.operations.outgoing_webhooks.announcements import new_id
from connectors.operations.outgoing_webhooks.delivery import ANSWER_S, MessageSender, enable
from connectors.operations.outgoing_webhooks.endpoints import WebhookTarget
from schemas.webhooks import TestMessage, TestWebhook

_TEXT = "This is a test message of Meterbridge."


def send_test(*, as_json: bool) -> None:
    """Run `meterbridge webhooks test`."""
    with one_sentence():
        settings = settings_of_command()
        if not settings.outgoing_webhook_urls:
            fail("OUTGOING_WEBHOOK_URLS is not set: there is no endpoint.", 2)
        lines = asyncio.run(_sent(settings))
    say(lines, as_json=as_json, table=lambda: table_of_lines(lines))
    if not all(line["taken"] for line in lines):
        raise typer.Exit(1)


async def _sent(settings: Settings) -> list[dict[str, Any]]:
    """Send one message to each endpoint; return host, status of the response (0: no response), and whether it was
    accepted.
    """
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    body = msgspec.json.encode(TestWebhook(at, TestMessage(_TEXT)))
    lines = []
    async with HttpClient(ANSWER_S) as http:
        sender = MessageSender(http, all_revealed(settings.outgoing_webhook_secrets))
        with optional_database(settings) as database:
            for endpoint in [WebhookTarget(url) for url in all_revealed(settings.outgoing_webhook_urls)]:
                status = await sender.post(endpoint, new_id(), body)
                taken = 200 <= status < 300
                if taken and database is not None:
                    await enable(database, endpoint)
                lines.append({"host": endpoint.host, "status": status, "taken": taken})
    return lines
