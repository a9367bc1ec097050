"""How long a token or a signing secret must be before a process takes anything on its word."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from connectors.ingest.sender_signatures import Secret
from schemas.errors import ConfigurationError

#: Bytes of a credential. Random base64 of 16 characters is 96 bits: not to be found by guessing over a network.
LEAST_BYTES: Final = 16
#: The same where the process listens on this machine alone. Shorter ones are mistakes, such as a truncated value.
LEAST_BYTES_ON_LOOPBACK: Final = 8


def check_strength(variable: str, credentials: Iterable[str], host: str) -> None:
    """Refuse to start with a credential that can be guessed.

    Args:
        variable: the setting that holds the credentials; the error names it, and never a credential.
        credentials: as they are set. Of `whsec_<base64>` the bytes behind the base64 count.
        host: the address the process listens on.

    Raises:
        ConfigurationError: one is shorter than `LEAST_BYTES`, or `LEAST_BYTES_ON_LOOPBACK`; or no base64 at all.
    """
    least = LEAST_BYTES_ON_LOOPBACK if is_loopback(host) else LEAST_BYTES
    for place, credential in enumerate(credentials, 1):
        if len(Secret.of(credential).key) < least:
            raise ConfigurationError(
                variable,
                f"value {place} of {variable} is shorter than {least} bytes; make one with: openssl rand -hex 32",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a process that listens on `host`."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
