"""Users with a token of an identity provider, Lago's key, and the rate limit for every caller."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.database import migrated_database
from tests.support.identity_provider import Provider, identity_provider, names
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.server import BEARER, Server, running_server, settings_for

ORGS = "/api/v1/billing/org/organizations"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with identity_provider() as found:
        yield found


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox() as running:
        await running.plan()
        yield running


@pytest.fixture
async def server(kafka: Kafka, topic_prefix: str, provider: Provider, lago: Lago) -> AsyncIterator[Server]:
    settings = settings_for(kafka, topic_prefix, lago_api_url=lago.url, **names(provider))
    async with running_server(settings, ("api",)) as running:
        yield running


async def test_a_user_of_the_provider_sees_their_org_and_no_other(server: Server, provider: Provider) -> None:
    """The address of the keys is discovered from the issuer."""
    answers = {
        org: await server.http.get(f"{ORGS}/{org}/subscription", headers=provider.token()) for org in ("org_1", "org_2")
    }
    assert answers["org_1"].status_code == 404, answers["org_1"].text
    assert (answers["org_2"].status_code, answers["org_2"].json()["reason"]) == (403, "other_org")
    deleted = await server.http.delete(f"{ORGS}/org_1/subscription", headers=provider.token())
    assert (deleted.status_code, deleted.json()["reason"]) == (403, "missing_scope")
    for_others = await server.http.get(f"{ORGS}/org_1/subscription", headers=provider.token(aud="somebody"))
    assert (for_others.status_code, for_others.json()["reason"]) == (401, "unknown_token")
    expired = await server.http.get(f"{ORGS}/org_1/subscription", headers=provider.token(exp=1))
    assert (expired.status_code, expired.json()["reason"]) == (401, "token_expired")
    result = (await server.http.get("/openapi.json")).json()["components"]["securitySchemes"]["oidc"]
    assert result["openIdConnectUrl"] == f"{provider.issuer}.well-known/openid-configuration"


async def test_a_key_created_by_a_user_ends_after_oidc_grant_days(
    kafka: Kafka, topic_prefix: str, postgres_url: str, provider: Provider
) -> None:
    """A user who has left the provider gets no token any more, and must not continue with a key created before."""
    async with migrated_database(postgres_url) as url:
        settings = settings_for(
            kafka, topic_prefix, **names(provider) | {"oidc_grant_days": 2, "database_url": SecretStr(url)}
        )
        wanted = {"name": "mine", "scopes": ["orgs:read"], "orgs": ["org_1"]}
        async with running_server(settings, ("api",)) as server:
            user = provider.token(permissions=["orgs:read", "keys:write"])

            async def days(path: str, body: dict[str, Any]) -> tuple[str, float]:
                answer = await server.http.post(f"/api/v1/access/keys{path}", json=body, headers=user)
                assert answer.status_code == 201, answer.text
                ends = datetime.fromisoformat(answer.json()["expires_at"])
                return answer.json()["id"], (ends - datetime.now(UTC)).total_seconds() / 86_400

            created, of_itself = await days("", wanted)
            _, asked_for_more = await days("", wanted | {"expires_at": "2999-01-01T00:00:00Z"})
            _, rotated = await days(f"/{created}/rotate", {})
            assert [round(one, 2) for one in (of_itself, asked_for_more, rotated)] == [2, 2, 2]


async def test_the_address_of_the_providers_keys_can_be_configured(
    kafka: Kafka, topic_prefix: str, provider: Provider
) -> None:
    """For an issuer whose document cannot be reached from here."""
    elsewhere = names(provider) | {"oidc_issuer": "https://id.invalid/", "oidc_jwks_url": f"{provider.issuer}keys"}
    async with running_server(settings_for(kafka, topic_prefix, **elsewhere), ("api",)) as server:
        answer = await server.http.get(f"{ORGS}/org_2/limits", headers=provider.token(iss="https://id.invalid/"))
        assert (answer.status_code, answer.json()["reason"]) == (403, "other_org")


async def test_while_the_provider_is_unavailable_no_token_is_called_wrong(
    kafka: Kafka, topic_prefix: str, provider: Provider
) -> None:
    away = names(provider) | {"oidc_jwks_url": f"http://127.0.0.1:{free_port()}/keys"}
    async with running_server(settings_for(kafka, topic_prefix, **away), ("api",)) as server:
        answer = await server.http.get(f"{ORGS}/org_1/limits", headers=provider.token())
        assert (answer.status_code, answer.json()["reason"]) == (503, "issuer_away")
        assert (await server.http.get("/customers/mappings", headers=BEARER)).status_code == 200


async def test_lagos_key_is_accepted_only_for_lagos_customers(server: Server) -> None:
    headers = {"Authorization": "Bearer a-key"}
    assert (await server.http.get("/api/billing/plans", headers=headers)).status_code == 200
    assert (await server.http.get("/api/customers/org_1", headers=headers)).status_code == 404
    for path in ("/customers/mappings", "/webhooks/stats", f"{ORGS}/org_1/subscription", "/api/v1/access/keys"):
        answer = await server.http.get(path, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "missing_scope"), path


async def test_a_caller_over_the_rate_limit_is_told_when_to_come_back(kafka: Kafka, topic_prefix: str) -> None:
    async with running_server(settings_for(kafka, topic_prefix, api_rate_limit=1), ("api",)) as server:
        answers = [await server.http.get("/customers/mappings", headers=BEARER) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 429, 429]
        assert answers[1].json()["reason"] == "too_many_requests" and int(answers[1].headers["retry-after"]) >= 1
        assert (await server.http.get("/health/live")).status_code == 200
