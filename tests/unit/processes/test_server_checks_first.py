"""A server with a wrong setting reports it before it connects to Kafka, whose client would print its own errors."""

import pytest

from connectors.config.settings import Settings
from connectors.processes import server
from schemas.errors import ConfigurationError


@pytest.mark.parametrize("token", [None, "short"])
async def test_credentials_are_checked_before_a_producer_exists(
    token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[object] = []
    monkeypatch.setattr(server, "KafkaProducer", lambda *given, **named: created.append(given))
    settings = Settings.model_validate(
        {**({} if token is None else {"webhook_token": token}), "host": "0.0.0.0", "metrics_port": 0}
    )
    with pytest.raises(ConfigurationError, match="WEBHOOK_TOKEN"):
        async with server.serving(settings, ("webhooks",)):
            pass
    assert created == []
