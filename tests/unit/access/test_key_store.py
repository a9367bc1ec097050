"""API keys: the stored form cannot be used as a key, a key never grants more than its creator has, and a revoked key is
soon refused.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.access.key_cache import AGAIN_S, BELIEVED_S, FRESH_S, KeyCache
from connectors.access.keys import ApiKey, expiring, is_within, key_id_of, mint, successor
from connectors.http.endpoint import Principal
from schemas.errors import Unavailable
from tests.support.entrance import ENDPOINTS, Clock
from tests.support.eventually import within

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCOPES = st.frozensets(st.sampled_from(["*", "a:read", "a:write", "b:read"]))
ORGS = st.none() | st.frozensets(st.sampled_from(["org_1", "org_2", "org_3"]))


def key(name: str = "a", orgs: list[str] | None = None, ends: datetime | None = None) -> tuple[ApiKey, str]:
    return mint(name, ["orgs:read"], orgs, "test", NOW, ends)


def test_a_token_is_long_and_unique_and_not_contained_in_its_stored_form() -> None:
    created = [key() for _ in range(100)]
    assert len({token for _, token in created}) == len({one.key_id for one, _ in created}) == 100
    for one, token in created:
        secret = token.removeprefix(f"{one.prefix}_")
        assert len(secret) == 43 and secret not in repr(one)
        assert key_id_of(token) == one.key_id
        assert one.is_of(token)
        assert not any(
            one.is_of(wrong) for wrong in (token[:-1], token + "x", secret, one.prefix, "", created[0][0].prefix)
        )


@pytest.mark.parametrize("token", ["", "mb_", "mb_x", "mb_x_", "mb__secret", "sk-master", "mbx_1_2", "a.b.c"])
def test_a_text_that_is_no_token_of_ours_has_no_id(token: str) -> None:
    assert key_id_of(token) is None


@given(SCOPES, ORGS, SCOPES, ORGS)
def test_a_key_created_within_its_creators_rights_gets_no_right_that_the_creator_lacks(
    inner: frozenset[str], inner_orgs: frozenset[str] | None, scopes: frozenset[str], orgs: frozenset[str] | None
) -> None:
    """Whatever the new key allows, the key that created it allows too."""
    if is_within(inner, inner_orgs, scopes, orgs):
        created, maker = Principal("made", inner, inner_orgs), Principal("maker", scopes, orgs)
        for scope in ("a:read", "a:write", "b:read", "never:heard"):
            assert maker.may(scope) or not created.may(scope)
        for org in ("org_1", "org_2", "org_3", "org_4"):
            assert maker.may_see(org) or not created.may_see(org)


def test_a_key_with_all_rights_may_grant_all_rights() -> None:
    assert is_within({"*"}, None, frozenset({"*"}), None)
    assert is_within({"a:read"}, frozenset({"org_1"}), frozenset({"*"}), None)
    assert not is_within({"*"}, None, frozenset({"a:read", "a:write", "b:read"}), None)


def test_a_rotated_key_has_the_same_rights_and_the_old_key_never_outlives_its_own_expiry() -> None:
    old, old_token = key(orgs=["org_1"], ends=NOW + 10 * HOUR)
    new, token = successor(old, "rotator", NOW + HOUR)
    assert (new.scopes, new.orgs, new.name, new.rotated_from) == (old.scopes, old.orgs, old.name, old.key_id)
    assert new.expires_at == NOW + 11 * HOUR and token != old_token and not new.is_of(old_token)
    assert expiring(old, NOW, 24 * HOUR).expires_at == NOW + 10 * HOUR
    assert expiring(old, NOW, HOUR).expires_at == NOW + HOUR
    assert expiring(key()[0], NOW, HOUR).expires_at == NOW + HOUR


def test_a_rotated_key_expires_no_later_than_the_key_that_created_it() -> None:
    for ends in (None, NOW + 10 * HOUR):
        assert successor(key(ends=ends)[0], "rotator", NOW, NOW + HOUR)[0].expires_at == NOW + HOUR
    assert successor(key(ends=NOW + HOUR)[0], "rotator", NOW, NOW + 10 * HOUR)[0].expires_at == NOW + HOUR


def test_a_key_expires_at_its_time_and_a_revoked_key_stays_revoked() -> None:
    one, _ = key(ends=NOW + HOUR)
    assert [one.state(NOW + after) for after in (HOUR - timedelta(microseconds=1), HOUR)] == ["live", "expired"]
    assert replace(one, revoked_at=NOW).state(NOW + 2 * HOUR) == "revoked"


@dataclass
class Table:
    """A table of keys in memory. `away`: it refuses; `slow`: it never answers."""

    keys: list[ApiKey] = field(default_factory=list)
    away: bool = False
    slow: bool = False
    reads: int = 0
    use: dict[str, datetime] = field(default_factory=dict)

    async def live(self, now: datetime) -> list[ApiKey]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.slow:
            await asyncio.Event().wait()
        if self.away:
            raise Unavailable("postgres_away")
        return [one for one in self.keys if one.state(now) == "live"]

    async def used(self, last_used_at: Mapping[str, datetime]) -> None:
        if self.away:
            raise Unavailable("postgres_away")
        self.use |= last_used_at


class Ring:
    """A cache of keys in front of a table, with its clock."""

    def __init__(self) -> None:
        self.table, self.clock = Table(), Clock()
        self.ring = KeyCache(self.table, self.clock, lambda: NOW + timedelta(seconds=self.clock.now - 1_000_000))

    def create(self, ends: datetime | None = None) -> str:
        one, token = key(ends=ends)
        self.table.keys.append(one)
        return token

    async def knows(self, token: str) -> bool:
        return await self.ring.principal(token, ENDPOINTS[0]) is not None

    def pass_s(self, seconds: float) -> None:
        self.clock.now += seconds


async def test_a_key_is_returned_with_its_scopes_orgs_and_prefix() -> None:
    ring = Ring()
    one, token = key(orgs=["org_1"])
    ring.table.keys.append(one)
    assert await ring.ring.principal(token, ENDPOINTS[0]) == Principal(f"key {one.prefix}", one.scopes, one.orgs)
    assert not await ring.knows(token[:-1] + ("a" if token[-1] != "a" else "b"))


async def test_a_revoked_key_is_refused_within_two_seconds() -> None:
    ring = Ring()
    token = ring.create()
    assert await ring.knows(token)
    ring.table.keys.clear()
    ring.pass_s(FRESH_S + 0.01)
    assert not await ring.knows(token)


async def test_an_expired_key_is_refused_from_its_expiry_on_without_a_query() -> None:
    ring = Ring()
    token = ring.create(ends=NOW + timedelta(seconds=1))
    assert await ring.knows(token)
    ring.table.away = True
    ring.pass_s(1)
    assert not await ring.knows(token)


async def test_a_key_created_in_this_process_is_known_at_once_and_one_created_elsewhere_soon() -> None:
    ring = Ring()
    assert not await ring.knows("mb_no_one_x")
    here = ring.create()
    ring.ring.changed()
    assert await ring.knows(here)
    elsewhere = ring.create()
    ring.pass_s(AGAIN_S + 0.01)
    assert await ring.knows(elsewhere)


async def test_repeated_wrong_keys_do_not_cost_a_query_each() -> None:
    ring = Ring()
    token = ring.create()
    for number in range(1000):
        assert not await ring.knows(f"mb_{number}_guess")
        ring.pass_s(0.001)
    assert ring.table.reads <= 3
    assert await ring.knows(token)


async def test_concurrent_lookups_share_one_query() -> None:
    ring = Ring()
    token = ring.create()
    assert all(await asyncio.gather(*(ring.knows(token) for _ in range(100))))
    assert ring.table.reads == 1


async def test_while_postgres_is_unavailable_known_keys_stay_valid_for_a_while_and_unknown_keys_are_not_called_wrong() -> (
    None
):
    ring = Ring()
    known, unknown = ring.create(), key()[1]
    assert await ring.knows(known)
    ring.table.away = True
    ring.pass_s(FRESH_S + 0.01)
    assert await ring.knows(known)
    with pytest.raises(Unavailable, match="keys_unknown"):
        await ring.knows(unknown)
    ring.pass_s(BELIEVED_S - FRESH_S - 0.02)
    assert await ring.knows(known)
    ring.pass_s(0.02)
    with pytest.raises(Unavailable, match="keys_unknown"):
        await ring.knows(known)
    ring.table.away = False
    ring.pass_s(AGAIN_S + 0.01)
    assert await ring.knows(known) and not await ring.knows(unknown)


async def test_without_postgres_since_the_start_no_key_is_known_and_none_is_called_wrong() -> None:
    ring = Ring()
    token = ring.create()
    ring.table.away = True
    with pytest.raises(Unavailable):
        await ring.knows(token)
    assert await ring.ring.principal("sk-other", ENDPOINTS[0]) is None


async def test_a_postgres_that_does_not_answer_delays_a_request_only_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.access.key_cache.READ_S", 0.05)
    ring = Ring()
    token = ring.create()
    assert await ring.knows(token)
    ring.table.slow = True
    ring.pass_s(FRESH_S + 0.01)
    async with within(5):
        assert await ring.knows(token)
        assert await ring.knows(token)
    assert ring.table.reads == 2, "what failed is not tried again at once"


async def test_the_last_use_of_several_keys_is_written_in_one_query() -> None:
    ring = Ring()
    tokens = [ring.create() for _ in range(3)]
    for token in tokens * 5:
        assert await ring.knows(token)
    assert not await ring.knows("mb_1_guess")
    await ring.ring.write_use()
    assert ring.table.use == {one.key_id: NOW for one in ring.table.keys}
    ring.table.away = True
    await ring.knows(tokens[0])
    await ring.ring.write_use()


async def test_an_unknown_key_delays_no_other_request() -> None:
    ring = Ring()
    token = ring.create()
    assert await ring.knows(token)
    ring.pass_s(AGAIN_S + 0.01)
    ring.table.slow = True
    asking = asyncio.ensure_future(ring.knows("mb_0123456789ab_" + "x" * 43))
    await asyncio.sleep(0.01)
    assert await asyncio.wait_for(ring.knows(token), 0.1)
    asking.cancel()
