"""Makes idempotency keys from several names."""

from schemas.bounded_name import bounded_name


def key_of_parts(*parts: str) -> str:
    """Make one key from these names, at most 255 bytes. Different names, and a different split of the same text, give a
    different key.

    Each name is preceded by its length, because a name may contain any possible separator.
    """
    return bounded_name(":".join(f"{len(part)}:{part}" for part in parts))
