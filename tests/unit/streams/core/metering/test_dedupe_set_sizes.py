"""The hash table of identities has a prime size: with another size a search might never end."""

import pytest

from streams.core.metering.dedupe_set import HOURS_APART, SeenIds, _prime_from

PRIMES = [number for number in range(2, 400) if all(number % divisor for divisor in range(2, number))]


def is_prime(number: int) -> bool:
    return number > 1 and all(number % prime for prime in PRIMES if prime * prime <= number)


@pytest.mark.parametrize("least", [*range(3, 300), *(prime * prime for prime in PRIMES[1:]), 1021, 100_003 - 1])
def test_a_size_is_the_first_odd_prime_that_is_large_enough(least: int) -> None:
    assert _prime_from(least) == next(number for number in range(least | 1, 2 * least + 2, 2) if is_prime(number))


def test_every_size_after_growing_and_shrinking_is_prime_and_leaves_enough_room() -> None:
    table = SeenIds()
    sizes = {table.nbytes // 17}
    for hour in range(12):
        ids = b"".join((1_000_000 * hour + number).to_bytes(6, "big") + b"\1" * 10 for number in range(300))
        table.add(ids, hour)
        sizes.add(table.nbytes // 17)
        assert len(table) <= 0.85 * (table.nbytes // 17)
    table.drop_before(11, 0)
    sizes.add(table.nbytes // 17)
    assert len(sizes) > 3 and all(map(is_prime, sizes))
    assert len(table) == 300


@pytest.mark.parametrize("begins", [0, 250, 490_000])
def test_248_hours_can_be_distinguished(begins: int) -> None:
    """From the oldest remembered hour to the newest; dropping one leaves its neighbours."""
    assert HOURS_APART == 248
    table = SeenIds()
    for number in range(HOURS_APART + 1):
        table.add(number.to_bytes(6, "big") + b"\1" * 10, begins + number)
    table.drop_before(begins + 1, begins)
    assert len(table) == HOURS_APART
    table.drop_before(begins + HOURS_APART, begins + 1)
    assert table.contains([HOURS_APART.to_bytes(6, "big") + b"\1" * 10]) == [True]
    assert len(table) == 1
