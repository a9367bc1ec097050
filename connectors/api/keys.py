"""API keys over HTTP: make, list, rotate and revoke them. A caller may handle only keys that may do no more than the caller."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from unicodedata import normalize

from aiohttp import web
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, StringConstraints, field_validator

from connectors.access.key_store import PostgresKeys
from connectors.access.keys import ApiKey, expiring, mint, successor
from connectors.access.scopes import EVERYTHING, SCOPES
from connectors.api.org_models import Id
from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import NO_STORE, json_response
from connectors.http.problem import Problem

_PATH: Final = "/api/v1/access/keys"
_ONE: Final = f"{_PATH}/{{key_id}}"
#: 30 days: in this time the new token can be installed everywhere.
MAX_OVERLAP_HOURS = 720

#: Ids are compared in normal form C and without leading white space, and so are prefixes.
Prefix = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"),
    AfterValidator(lambda text: normalize("NFC", text)),
]


class NewKey(BaseModel, extra="forbid"):
    """A key to make.

    Fields:
        name: a name for people; the audit log shows it.
        scopes: what the key may do (docs/access.md), `*` = everything.
        orgs: the only orgs that the key may see or change; null = all.
        customer_prefixes: the key may map LiteLLM customers whose ids begin with one of these. Null = any
            customer for a key of all orgs; for a key of some orgs only customers that are mapped to these orgs
            already.
        expires_at: with its offset from UTC; null = never.
    """

    name: Annotated[Id, Field(examples=["billing dashboard"])]
    scopes: Annotated[list[str], Field(min_length=1, max_length=50, examples=[["orgs:read"]])]
    orgs: Annotated[list[Id], Field(min_length=1, max_length=1000)] | None = None
    customer_prefixes: Annotated[list[Prefix], Field(min_length=1, max_length=100, examples=[["acme-"]])] | None = None
    expires_at: AwareDatetime | None = None

    @field_validator("scopes")
    @classmethod
    def _known(cls, scopes: list[str]) -> list[str]:
        if not {EVERYTHING, *SCOPES}.issuperset(scopes):
            raise ValueError(f"must be of {', '.join(SCOPES)}, or {EVERYTHING}")
        return scopes


class Overlap(BaseModel, extra="forbid"):
    """For how many hours the old key stays valid.

    Fields:
        overlap_hours: for how many hours the old key stays valid; 0 = it stops at once.
    """

    overlap_hours: Annotated[float, Field(ge=0, le=MAX_OVERLAP_HOURS, examples=[24])] = 24


class Key(BaseModel):
    """A key without its token.

    Fields:
        id: `prefix` without `mb_`.
        prefix: the first characters of the token.
        name: its name for people.
        scopes: what the key may do (docs/access.md), `*` = everything.
        orgs: the only orgs that the key may see or change; null = all.
        state: `live`, `expired` or `revoked`.
        expires_at: when it expires, ISO 8601; null = never.
        rotated_from: id of the key that this one replaced; null = it is no replacement.
    """

    id: str
    prefix: str
    name: str
    scopes: list[str]
    orgs: list[str] | None
    customer_prefixes: list[str] | None
    state: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    rotated_from: str | None


class MadeKey(Key):
    """A key with its token. No other response shows the token.

    Fields:
        token: the key itself. It is shown once; store it now.
    """

    token: str


class Keys(BaseModel):
    """At most 1000 keys, the latest first."""

    keys: list[Key]


class KeyHandlers:
    """Everything below `/api/v1/access/keys`.

    Args:
        store: returns the store, or raises ConfigurationError if the deployment has no Postgres.
        now: timezone-aware.
        changed: called after each change.
    """

    def __init__(
        self, store: Callable[[], PostgresKeys], now: Callable[[], datetime], changed: Callable[[], None]
    ) -> None:
        self._store = store
        self._now = now
        self._changed = changed

    @endpoint(
        "POST",
        _PATH,
        "keys:write",
        body=NewKey,
        refuses={409: ("too_many_keys",), 422: ("already_expired",)},
        answers={201: MadeKey},
        sees_to_orgs=True,
    )
    async def create(self, authorized: AuthorizedRequest) -> web.Response:
        """Make an API key; only this response shows its token."""
        store, body, now = self._store(), authorized.body, self._now()
        orgs = None if body.orgs is None else frozenset(body.orgs)
        ends, until = body.expires_at, authorized.principal.until
        if ends is not None and ends <= now:
            raise Problem(422, "already_expired", "expires_at is past")
        if until is not None and (ends is None or ends > until):
            ends = until
        key, token = mint(body.name, body.scopes, orgs, authorized.principal.actor, now, ends, body.customer_prefixes)
        if not key.is_within(authorized.principal.scopes, authorized.principal.orgs, authorized.principal.prefixes):
            raise _beyond()
        await authorized.changing(None, key_shown(key, now))
        await store.add(key)
        self._changed()
        return json_response({**key_shown(key, now), "token": token}, 201, NO_STORE)

    @endpoint("GET", _PATH, "keys:read", answers={200: Keys}, sees_to_orgs=True)
    async def listed(self, authorized: AuthorizedRequest) -> web.Response:
        """List API keys, the latest first, without their tokens.

        Only a caller that may see all orgs sees a key for all orgs.
        """
        keys, now = await self._store().all(), self._now()
        return json_response({"keys": [key_shown(key, now) for key in keys if _sees(authorized, key)]})

    @endpoint(
        "POST",
        f"{_ONE}/rotate",
        "keys:write",
        body=Overlap,
        refuses={404: ("unknown_key",), 409: ("key_ended",)},
        answers={201: MadeKey},
        sees_to_orgs=True,
    )
    async def rotate(self, authorized: AuthorizedRequest) -> web.Response:
        """Replace an API key; the old one stays valid for some hours."""
        store, now = self._store(), self._now()
        old = await self._own(store, authorized)
        if old.state(now) != "live":
            raise Problem(409, "key_ended", "the key is revoked or expired: make a new one")
        key, token = successor(old, authorized.principal.actor, now, authorized.principal.until)
        ending = expiring(old, now, timedelta(hours=authorized.body.overlap_hours))
        await authorized.changing(key_shown(old, now), [key_shown(ending, now), key_shown(key, now)])
        await store.replace(ending, key)
        self._changed()
        return json_response({**key_shown(key, now), "token": token}, 201, NO_STORE)

    @endpoint("DELETE", _ONE, "keys:write", refuses={404: ("unknown_key",)}, answers={200: Key}, sees_to_orgs=True)
    async def revoke(self, authorized: AuthorizedRequest) -> web.Response:
        """Revoke an API key; it is refused within seconds. Repeating it changes nothing."""
        store, now = self._store(), self._now()
        key = await self._own(store, authorized)
        if key.revoked_at is None:
            await authorized.changing(key_shown(key, now), None)
            await store.revoke(key.key_id, now)
            self._changed()
        return json_response(key_shown(await store.get(key.key_id) or key, now))

    async def _own(self, store: PostgresKeys, authorized: AuthorizedRequest) -> ApiKey:
        """Return the key in the path. Raises: Problem: 404: the caller may not see it; 403: it may do more than the
        caller.
        """
        key = await store.get(authorized.part("key_id"))
        if key is None or not _sees(authorized, key):
            raise Problem(404, "unknown_key", "there is no such key: GET /api/v1/access/keys lists them")
        if not key.is_within(authorized.principal.scopes, authorized.principal.orgs, authorized.principal.prefixes):
            raise _beyond()
        return key


def key_shown(key: ApiKey, now: datetime) -> dict[str, Any]:
    """Return a key as JSON shows it, without anything secret."""
    orgs, prefixes = (None if names is None else sorted(names) for names in (key.orgs, key.prefixes))
    shown = {"id": key.key_id, "prefix": key.prefix, "scopes": sorted(key.scopes), "state": key.state(now)}
    values = asdict(key) | shown | {"orgs": orgs, "customer_prefixes": prefixes}
    return {name: values[name] for name in Key.model_fields}


def _sees(authorized: AuthorizedRequest, key: ApiKey) -> bool:
    return authorized.principal.orgs is None or (key.orgs is not None and key.orgs <= authorized.principal.orgs)


def _beyond() -> Problem:
    return Problem(403, "exceeds_caller", "the key may do more than you may")
