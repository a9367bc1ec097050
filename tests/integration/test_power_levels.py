"""The power levels over HTTP, as in the table."""

from pydantic import SecretStr

from tests.support.database import rows
from tests.support.identity_provider import identity_provider, names
from tests.support.kafka import Kafka
from tests.support.server import BEARER, running_server, settings_for

PATH = "/api/v1/power-levels"


async def test_any_user_gets_the_power_levels_with_exact_factors(kafka: Kafka, topic_prefix: str, url: str) -> None:
    await rows(url, "UPDATE power_level_configs SET cost_multiplier = 0.725 WHERE power_level = 'eco'")
    async with identity_provider() as provider:
        settings = settings_for(kafka, topic_prefix, database_url=SecretStr(url), **names(provider))
        async with running_server(settings, ("api",)) as server:
            assert (await server.http.get(PATH)).status_code == 401
            for by in (BEARER, provider.token()):
                answer = await server.http.get(PATH, headers=by)
                assert answer.status_code == 200, answer.text
                levels = answer.json()["power_levels"]
                factors = {level["power_level"]: level["cost_multiplier"] for level in levels}
                assert factors == {"eco": "0.725", "balanced": "1", "precision": "1.5"}
                assert levels[0]["provider_order"] and levels[0]["target_latency_ms"] > 0


async def test_without_postgres_there_are_no_power_levels(kafka: Kafka, topic_prefix: str) -> None:
    async with running_server(settings_for(kafka, topic_prefix), ("api",)) as server:
        answer = await server.http.get(PATH, headers=BEARER)
        assert (answer.status_code, answer.json()["reason"]) == (501, "needs_postgres")
