"""Composes the users of an identity provider: their tokens, the provider's keys, and the connection to it."""

import time
from datetime import timedelta

from connectors.access.jwks import ANSWER_S, KeySet
from connectors.access.user_tokens import Users
from connectors.config.http_client import HttpClient
from connectors.config.settings import Settings


class UserTokens:
    """The users of one process.

    Attributes:
        users: authenticates the users.
    """

    def __init__(self, settings: Settings, issuer: str) -> None:
        self._http = HttpClient(ANSWER_S)
        keys = KeySet(self._http, issuer, settings.oidc_jwks_url or "", time.monotonic)
        claims = (settings.oidc_scopes_claim, settings.oidc_orgs_claim)
        life, user_claim = timedelta(days=settings.oidc_grant_days), settings.oidc_user_claim
        self.users = Users(keys, issuer, settings.oidc_audience, *claims, life, user_claim=user_claim)

    async def close(self) -> None:
        """Close the connections to the provider."""
        await self._http.aclose()
