"""Users come with a JWT of an identity provider; its claims say what they may do and for which orgs.

Checked are the signature (asymmetric algorithms only), `iss`, `aud`, `exp`, `nbf`, and that there is a `sub`
(RFC 7519, RFC 8725). Scopes that are none of ours are ignored, `*` too: only keys may do everything. A token that
names no org is for none; `*` among its orgs is all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt

from connectors.access.jwks import ALGORITHMS, KeySet
from connectors.access.scopes import EVERYTHING, SCOPES, current_scopes
from connectors.http.endpoint import Endpoint, Principal
from connectors.http.problem import Problem

#: How far clocks may differ.
LEEWAY_S: Final = 10
_PARTS = 3
_MAX_SUBJECT = 255


class Users:
    """`connectors.api.authorizer.Credentials` of users.

    Args:
        audiences: one of them is in the token's `aud`.
        scopes_claim, orgs_claim: a claim's name, or a path of names joined by dots.
        key_life: how long an API key lives at most that a user makes: a token ends within the hour, and who has left
            the provider makes no new one, so what they leave behind must end too.
        now: aware.
    """

    def __init__(
        self,
        keys: KeySet,
        issuer: str,
        audiences: Sequence[str],
        scopes_claim: str,
        orgs_claim: str,
        key_life: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audiences = audiences
        self._scopes_claim = scopes_claim
        self._orgs_claim = orgs_claim
        self._key_life = key_life
        self._now = now

    async def who(self, token: str, endpoint: Endpoint) -> Principal | None:  # noqa: ARG002  # a user is one everywhere
        """Whose token it is.

        Raises:
            Problem: 401 `token_expired`, of a token that was right.
            Unavailable: `issuer_away`.
        """
        if token.count(".") != _PARTS - 1:
            return None
        try:
            head = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError):  # surrogates of bytes that are no UTF-8
            return None
        algorithm = head.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            return None
        key = await self._keys.key(str(head.get("kid") or ""), algorithm)
        claims = None if key is None else self._verified(token, key)
        return None if claims is None else self._who(claims)

    def _verified(self, token: str, key: jwt.PyJWK) -> dict[str, Any] | None:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=list(self._audiences),
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": ["iss", "aud", "exp", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise Problem(401, "token_expired", "the token has expired: log in again", challenge) from None
        except jwt.PyJWTError:
            return None

    def _who(self, claims: dict[str, Any]) -> Principal | None:
        subject = claims["sub"]
        if not subject or len(subject) > _MAX_SUBJECT or not subject.isprintable():
            return None
        orgs = frozenset(_words(_claim(claims, self._orgs_claim)))
        scopes = current_scopes(_words(_claim(claims, self._scopes_claim))).intersection(SCOPES)
        until = self._now() + self._key_life
        return Principal(f"user {subject}", scopes, None if EVERYTHING in orgs else orgs, until)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim of this name, else what is found along it: `realm_access.roles`."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _words(value: Any) -> list[str]:
    """A list of texts, or a text with spaces between words as in RFC 8693's `scope`; anything else is none."""
    if isinstance(value, str):
        return value.split()
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
