"""The plugin's requests before a call, sent to a real management API: the plugin can read its answers."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from connectors.credits.ledger import CreditLedger
from connectors.postgres.pool import Database
from meterbridge_litellm.admission import Admission
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.refusal import Refused
from meterbridge_litellm.settings import PluginSettings
from tests.support.database import rows
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage

MIDDLE = "canary0123456789canary"
CANARY = f"sk-{MIDDLE}wxyz"
ADA = SimpleNamespace(user_id="ada", org_id=None, team_id=None, metadata={})
LEVELS = {"eco": {"models": {"gpt-5": {"anthropic": "haiku", "openai": "gpt-5-nano"}}}}


@pytest.fixture
async def server(kafka: Kafka, topic_prefix: str, stage: Stage, url: str) -> AsyncIterator[Server]:
    secret = SecretStr(Fernet.generate_key().decode())
    settings = settings_for(
        kafka,
        topic_prefix,
        kafka_partitions=stage.settings.kafka_partitions,
        database_url=SecretStr(url),
        provider_keys_secret=(secret,),
    )
    async with running_server(settings, ("api",)) as running:
        yield running


@pytest.fixture
async def admission(server: Server, tmp_path: Path) -> AsyncIterator[Admission]:
    scopes = ["credits:write", "provider_keys:decrypt", "plans:read"]
    created = await server.http.post("/api/v1/access/keys", json={"name": "plugin", "scopes": scopes}, headers=BEARER)
    (tmp_path / "levels.json").write_text(json.dumps(LEVELS))
    settings = PluginSettings(
        url="http://unused",
        ring_path="unused",
        token="t",
        api_key=created.json()["token"],
        authorize="on",
        own_keys="billed",
        own_key_seconds=0,
        levels=str(tmp_path / "levels.json"),
    )
    headers = {"Authorization": f"Bearer {settings.api_key}"}
    async with http_client(base_url=str(server.http.base_url), headers=headers, trust_env=False) as http:
        marked = [{"model_info": {"own_key_provider": "openai"}}]
        yield Admission(settings, Counts(), http, {}, lambda _model, _team: marked)


def call(number: int, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-5", "messages": [], "litellm_call_id": f"call-{number}", **more}


@pytest.mark.kafka
async def test_a_call_gets_its_power_level_its_key_and_its_credit_and_releases_it(
    server: Server, admission: Admission, stage: Stage, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Refused) as refused:
        await admission.admit(ADA, call(1), "acompletion")
    assert refused.value.reason == "insufficient_credits"
    await rows(url, "SELECT success FROM add_user_credits('ada', 1, 'bonus')")
    wanted = {"user_id": "ada", "provider": "openai", "api_key": CANARY}
    key = (await server.http.post("/api/v1/provider-keys", json=wanted, headers=BEARER)).json()

    data = call(2, metadata={"power_level": "eco"})
    decided = await admission.admit(ADA, data, "acompletion")
    assert (decided.level, decided.own_key, data["api_key"]) == ("eco", True, CANARY)
    assert data["model"] in {"gpt-5-nano", "haiku"}
    ledger = CreditLedger(Database(url, size=1))
    assert (await ledger.balance("user:ada")).reserved == Decimal("0.05")
    await admission.credit.give_back(decided.reservation)
    assert (await ledger.balance("user:ada")).reserved == 0

    await server.http.delete(f"/api/v1/provider-keys/{key['id']}", headers=BEARER)
    data = call(3)
    assert not (await admission.admit(ADA, data, "acompletion")).own_key
    assert "api_key" not in data, "a key that was revoked is used no more"

    lines = [line["action"] for line in stage.values(stage.topics.audit)]
    assert lines.count("provider_keys.decrypt") == 1
    assert MIDDLE not in json.dumps(stage.values(stage.topics.audit)) + caplog.text
    tables = [name for (name,) in await rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    for table in tables:
        found = await rows(url, f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%{MIDDLE}%'")
        assert found == [(0,)], table
