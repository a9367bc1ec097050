"""An identity provider on loopback, whose users' tokens a server takes."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.support.ports import free_port


@dataclass
class Provider:
    """An identity provider on loopback."""

    issuer: str
    key: rsa.RSAPrivateKey

    def token(self, **changes: Any) -> dict[str, str]:
        claims = {"iss": self.issuer, "aud": "meterbridge", "sub": "ada", "exp": time.time() + 60, "iat": time.time()}
        claims |= {"permissions": ["orgs:read", "customers:read"], "https://example/orgs": ["org_1"]}
        signed = jwt.encode(claims | changes, self.key, algorithm="RS256", headers={"kid": "one"})
        return {"Authorization": f"Bearer {signed}"}


@asynccontextmanager
async def identity_provider() -> AsyncIterator[Provider]:
    """Yield a provider that signs tokens, and answers where its keys are."""
    port = free_port()
    found = Provider(f"http://127.0.0.1:{port}/", rsa.generate_private_key(65537, 2048))

    async def discovery(_: web.Request) -> web.Response:
        return web.json_response({"issuer": found.issuer, "jwks_uri": f"{found.issuer}keys"})

    async def keys(_: web.Request) -> web.Response:
        return web.json_response(
            {"keys": [{**RSAAlgorithm.to_jwk(found.key.public_key(), as_dict=True), "kid": "one"}]}
        )

    app = web.Application()
    app.add_routes([web.get("/.well-known/openid-configuration", discovery), web.get("/keys", keys)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield found
    finally:
        await runner.cleanup()


def names(provider: Provider) -> dict[str, Any]:
    """Return the settings that make a server take the provider's tokens."""
    return {
        "oidc_issuer": provider.issuer,
        "oidc_audience": ("meterbridge",),
        "oidc_scopes_claim": "permissions",
        "oidc_orgs_claim": "https://example/orgs",
    }
