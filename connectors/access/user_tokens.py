"""Authenticates users by a JWT of an identity provider. Its claims contain their rights and their orgs.

It checks the signature (asymmetric algorithms only), `iss`, `aud`, `exp`, `nbf` and that `sub` exists (RFC 7519, RFC
8725). Unknown scopes are ignored. The scope `*` is also ignored: only keys may have all rights. A token without orgs
gives access to no org; `*` among its orgs means all orgs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt

from connectors.access.jwks import ALGORITHMS, KeySet
from connectors.access.scopes import EVERYTHING, SCOPES, current_scopes
from connectors.http.endpoint import Endpoint, Principal
from connectors.http.problem import Problem

#: The largest accepted difference between the clocks, seconds.
LEEWAY_S: Final = 10
_PARTS = 3
_MAX_SUBJECT = 255


@dataclass(slots=True)
class Users:
    """`connectors.api.authorizer.Credentials` for users.

    Args:
        audiences: `aud` of a token must have one of them.
        scopes_claim, orgs_claim: the name of a claim, or a path of names joined by dots.
        key_life: the longest lifetime of an API key that a user makes. A user who has left the provider gets no new token, so
            the user's keys must expire too.
        now: timezone-aware.
        user_claim: the claim with the user's id, named as the other claims are. Without a usable id the token stays valid, but
            its user owns nothing here.
    """

    keys: KeySet
    issuer: str
    audiences: Sequence[str]
    scopes_claim: str
    orgs_claim: str
    key_life: timedelta
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    user_claim: str = "sub"

    async def principal(self, token: str, endpoint: Endpoint) -> Principal | None:  # noqa: ARG002  # the same for every endpoint
        """Return the caller with this token; None = the token is not valid.

        Raises:
            Problem: 401 `token_expired`: the token is valid but expired.
            Unavailable: `issuer_away`.
        """
        if token.count(".") != _PARTS - 1:
            return None
        try:
            head = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError):  # PyJWT raises ValueError for surrogates
            return None
        algorithm = head.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            return None
        key = await self.keys.key(str(head.get("kid") or ""), algorithm)
        claims = None if key is None else self._verified(token, key)
        return None if claims is None else self._who(claims)

    def _verified(self, token: str, key: jwt.PyJWK) -> dict[str, Any] | None:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=list(self.audiences),
                issuer=self.issuer,
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
        if not _is_name(subject):
            return None
        orgs = frozenset(_words(_claim(claims, self.orgs_claim)))
        scopes = current_scopes(_words(_claim(claims, self.scopes_claim))).intersection(SCOPES)
        until = self.now() + self.key_life
        user = _claim(claims, self.user_claim)
        own = user if _is_name(user) else ""
        return Principal(f"user {subject}", scopes, None if EVERYTHING in orgs else orgs, until, user=own)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim with this name, otherwise the value at this path, e.g. `realm_access.roles`."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_SUBJECT and value.isprintable()


def _words(value: Any) -> list[str]:
    """Return the words of a list, or of a text with spaces such as `scope` in RFC 8693; for any other value, no words."""
    if isinstance(value, str):
        return value.split()
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
