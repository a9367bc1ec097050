"""Tokens with the claims that Keycloak writes: the user's id, the user's scopes, and tokens that are refused.

The claims are in the form of Keycloak 26, with made-up names and ids. A mapper adds the audience `meterbridge`, the orgs and
LiteLLM's user id; `other_client.json` has the default audience `account` alone.
"""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from connectors.access.jwks import KeySet
from connectors.access.user_tokens import Users
from connectors.http.endpoint import Principal
from tests.support.entrance import ENDPOINTS, Clock

CLAIMS = Path(__file__).parents[2] / "fixtures" / "keycloak"
ISSUER = "https://sso.example/realms/shop"
KEY = rsa.generate_private_key(65537, 2048)
NOW = datetime(2026, 11, 20, tzinfo=UTC)
ROLES = "resource_access.meterbridge.roles"


async def signed_in(name: str, user_claim: str = "sub", **changes: Any) -> Principal | None:
    """The caller with the token of a file. `changes` replaces claims; None removes one."""
    result = json.loads((CLAIMS / f"{name}.json").read_text()) | {"iss": ISSUER, "exp": time.time() + 300} | changes
    claims = {claim: value for claim, value in result.items() if value is not None}
    keys = {"keys": [{**RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "one", "use": "sig"}]}
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=keys)))
    keyset = KeySet(http, ISSUER, f"{ISSUER}/protocol/openid-connect/certs", Clock())
    users = Users(keyset, ISSUER, ["meterbridge"], ROLES, "orgs", timedelta(days=30), lambda: NOW, user_claim)
    return await users.principal(jwt.encode(claims, KEY, "RS256", {"kid": "one"}), ENDPOINTS[0])


async def test_a_user_is_identified_by_the_subject_and_may_only_reach_own_data() -> None:
    user = await signed_in("user")
    assert user is not None
    assert (user.user, user.scopes, user.orgs) == ("5d1c5b3e-6f0e-4f2b-9a57-3a1d6e1f0001", set(), {"org_acme"})


async def test_another_claim_may_name_the_user_and_the_audit_log_still_has_the_subject() -> None:
    user = await signed_in("user", "litellm_user_id")
    assert user is not None
    assert (user.user, user.actor) == ("litellm-ada", "user 5d1c5b3e-6f0e-4f2b-9a57-3a1d6e1f0001")


@pytest.mark.parametrize("value", [None, "", 7, ["litellm-ada"], "a\nb", "x" * 256])
async def test_a_user_without_a_usable_id_owns_nothing_and_is_not_mistaken_for_another(value: Any) -> None:
    user = await signed_in("user", "litellm_user_id", litellm_user_id=value)
    assert user is not None
    assert user.user == ""


async def test_roles_of_the_client_are_scopes() -> None:
    administrator = await signed_in("administrator")
    assert administrator is not None
    assert (administrator.scopes, administrator.orgs) == ({"credits:read", "credits:write"}, None)


async def test_a_service_account_has_the_roles_of_its_client() -> None:
    service = await signed_in("service_account")
    assert service is not None
    assert (service.scopes, service.orgs) == ({"credits:write"}, None)


async def test_a_token_for_another_client_is_refused() -> None:
    assert await signed_in("other_client") is None
