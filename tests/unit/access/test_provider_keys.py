"""Users' provider keys: the stored form does not reveal the key, every decryption is counted, and the log is not
flooded.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cryptography.fernet import Fernet
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.access.provider_keys.cipher import KeyCipher, SealedKey, secret_id
from connectors.access.provider_keys.keys import LEAST_SHOWN, ProviderKey, masked, new_key, shown_parts
from connectors.access.provider_keys.store import Use
from connectors.access.provider_keys.use import HOUR_S, DecryptionLog, Decryptions, UseCounter
from schemas.errors import Unavailable

NOW = datetime(2026, 11, 20, tzinfo=UTC)
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
KEY = "sk-ant-api03-0123456789abcdefghij-wxyz"
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=200)


def stored(user: str = "ada", provider: str = "openai", api_key: str = KEY) -> ProviderKey:
    return new_key(user, provider, "default", api_key, "user ada", NOW, timedelta(days=90))


@pytest.mark.parametrize(
    ("api_key", "shown"),
    [
        ("sk-0123456789abcdefabcd", "sk-...abcd"),
        (KEY, "sk-...wxyz"),
        ("gsk_0123456789abcdefabcd", "gsk_...abcd"),
        ("AIzaSy0123456789abcdefabcd", "...abcd"),
        ("0123456789abcdef-0123", "...0123"),
        ("sk-short", "..."),
    ],
)
def test_a_key_is_shown_by_its_first_and_its_last_four_characters(api_key: str, shown: str) -> None:
    assert masked(api_key) == shown


@given(KEYS)
def test_at_most_eleven_characters_of_a_key_are_shown(api_key: str) -> None:
    shown = masked(api_key)
    beginning, _, end = shown.partition("...")
    assert len(beginning) <= 7 and len(end) <= 4 and api_key.startswith(beginning) and api_key.endswith(end)
    assert len(api_key) - len(beginning) - len(end) >= min(9, len(api_key)) or len(api_key) < LEAST_SHOWN


@example("provider")
@given(KEYS)
def test_an_encrypted_key_decrypts_to_itself_and_appears_in_no_stored_text(api_key: str) -> None:
    cipher, key = KeyCipher([OLD]), stored(api_key=api_key)
    sealed = cipher.sealed(key, api_key)
    assert cipher.opened(key, sealed) == api_key
    assert api_key.encode() not in sealed.encrypted
    name = f"{KeyCipher.__module__}.{KeyCipher.__qualname__}"  # a generated key may be one of its words
    assert api_key not in repr(cipher).replace(name, "") and "encrypted" not in repr(sealed)


def test_an_older_secret_decrypts_and_the_newest_secret_encrypts() -> None:
    key = stored()
    sealed = KeyCipher([OLD]).sealed(key, KEY)
    both = KeyCipher([NEW, OLD])
    assert both.opened(key, sealed) == KEY
    assert KeyCipher([NEW]).opened(key, both.sealed(key, KEY)) == KEY


def test_without_the_secret_the_error_names_the_setting() -> None:
    with pytest.raises(Unavailable, match="PROVIDER_KEYS_SECRET") as refused:
        KeyCipher([NEW]).opened(stored(), KeyCipher([OLD]).sealed(stored(), KEY))
    assert refused.value.reason == "provider_keys_secret_wrong" and OLD not in str(refused.value)


@pytest.mark.parametrize("change", [{"user_id": "eve"}, {"provider": "anthropic"}, {"key_id": "pk_0123456789abcdef"}])
def test_a_ciphertext_moved_to_another_row_is_not_decrypted(change: dict[str, str]) -> None:
    """An attacker who can write to the table must not get a key by moving it to another user's row."""
    cipher, key = KeyCipher([OLD]), stored()
    with pytest.raises(Unavailable, match="provider_key_unreadable"):
        cipher.opened(replace(key, **change), cipher.sealed(key, KEY))


def test_a_changed_ciphertext_is_not_decrypted() -> None:
    cipher, key = KeyCipher([OLD]), stored()
    sealed = cipher.sealed(key, KEY)
    broken = SealedKey(sealed.encrypted[:-9] + b"AAAAAAAA=", sealed.secret_id)
    with pytest.raises(Unavailable, match="provider_key_unreadable"):
        cipher.opened(key, broken)


def test_the_id_of_a_secret_does_not_reveal_the_secret() -> None:
    assert secret_id(OLD) != secret_id(NEW) and len(secret_id(OLD)) == 16
    assert secret_id(OLD) not in OLD


def test_a_key_put_into_a_path_by_mistake_is_not_written_to_the_audit_log() -> None:
    parts = {"provider_key_id": KEY, "org_id": "org_a"}
    assert shown_parts(parts) == {"provider_key_id": "[no key id]", "org_id": "org_a"}
    assert shown_parts({"provider_key_id": "pk_0123456789abcdef"}) == {"provider_key_id": "pk_0123456789abcdef"}


class Log:
    """A log of decryptions with a clock, and with lines that the log may refuse."""

    def __init__(self) -> None:
        self.now, self.lines, self.away = 1000.0, list[Decryptions](), False
        self.log = DecryptionLog(self.write, lambda: self.now)

    async def write(self, line: Decryptions) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("kafka_unavailable")
        self.lines.append(line)

    def counts(self) -> Sequence[int]:
        return [line.times for line in self.lines]


async def test_500_calls_a_second_for_an_hour_make_two_log_lines_that_count_all_of_them() -> None:
    """One line before the key is used the first time, one for the rest of the hour."""
    result, key = Log(), stored()
    for second in range(3600):
        result.now = 1000.0 + second
        for _ in range(5):
            await result.log.giving("key mb_1", key, "::1")
        await result.log.write_ended()
    assert result.counts() == [1]
    result.now = 1000.0 + HOUR_S
    await result.log.write_ended()
    assert result.counts() == [1, 3600 * 5 - 1]
    assert result.lines[0] == Decryptions("key mb_1", key.key_id, "ada", "openai", 1, "::1")


@given(st.lists(st.tuples(st.sampled_from(["use", "look"]), st.floats(0, 3000)), max_size=60))
async def test_log_lines_about_a_key_are_an_hour_apart_and_count_every_decryption(
    steps: list[tuple[str, float]],
) -> None:
    result, key, uses, at = Log(), stored(), 0, list[float]()
    for step, wait_s in steps:
        result.now += wait_s
        before = len(result.lines)
        if step == "use":
            await result.log.giving("a", key, "")
            uses += 1
            assert result.lines and result.now - max([*at, result.now if len(result.lines) > before else 0]) < HOUR_S
        else:
            await result.log.write_ended()
        at += [result.now] * (len(result.lines) - before)
    assert all(later - earlier >= HOUR_S for earlier, later in pairwise(at))
    await result.log.write_ended(also_running=True)
    assert sum(result.counts()) == uses


async def test_concurrent_requests_wait_for_one_log_line() -> None:
    result, key = Log(), stored()
    await asyncio.gather(*(result.log.giving("a", key, "") for _ in range(20)))
    assert result.counts() == [1]
    await result.log.write_ended(also_running=True)
    assert result.counts() == [1, 19]


async def test_another_caller_or_another_key_has_its_own_log_line() -> None:
    result = Log()
    one, two = stored(), stored(provider="anthropic")
    for actor, key in (("a", one), ("b", one), ("a", two)):
        await result.log.giving(actor, key, "")
    assert len(result.lines) == 3


async def test_no_key_is_used_before_its_log_line_is_written_and_no_count_is_lost() -> None:
    result, key = Log(), stored()
    result.away = True
    with pytest.raises(Unavailable):
        await result.log.giving("a", key, "")
    result.away = False
    for _ in range(3):
        await result.log.giving("a", key, "")
    result.away, result.now = True, result.now + HOUR_S
    await result.log.write_ended()
    result.away = False
    await result.log.giving("a", key, "")
    assert result.counts() == [1, 3]


async def test_counts_of_uses_are_stored_in_sums_and_counts_that_failed_to_store_are_added_to_the_next_sum() -> None:
    counter, sums, away = UseCounter(), list[dict[str, Use]](), True

    async def store(uses: dict[str, Use]) -> None:
        if away:
            raise Unavailable("postgres_away")
        sums.append(uses)

    counter.used("pk_1", NOW)
    counter.used("pk_1", NOW + timedelta(seconds=5))
    await counter.write(store)
    counter.used("pk_1", NOW + timedelta(seconds=1))
    away = False
    await counter.write(store)
    await counter.write(store)
    assert sums == [{"pk_1": Use(3, NOW + timedelta(seconds=5))}]
