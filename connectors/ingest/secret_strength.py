"""The minimum length of tokens and signing secrets; a process with a shorter one does not start."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from connectors.ingest.sender_signatures import Secret
from schemas.errors import ConfigurationError

#: Minimum bytes of a credential. 16 random characters of base64 are 96 bits, which cannot be guessed over a network.
LEAST_BYTES: Final = 16
#: The minimum if the process listens only on loopback. A shorter one is a mistake, such as a truncated value.
LEAST_BYTES_ON_LOOPBACK: Final = 8


def check_strength(variable: str, credentials: Iterable[str], host: str) -> None:
    """Refuse to start with a credential that can be guessed.

    Args:
        variable: the setting with the credentials; the error names it, and never a credential.
        credentials: as they are set. For `whsec_<base64>` the decoded bytes count.
        host: the address on which the process listens.

    Raises:
        ConfigurationError: one is shorter than `LEAST_BYTES` (`LEAST_BYTES_ON_LOOPBACK`), or is not base64.
    """
    least = LEAST_BYTES_ON_LOOPBACK if is_loopback(host) else LEAST_BYTES
    for place, credential in enumerate(credentials, 1):
        if len(Secret.of(credential).key) < least:
            raise ConfigurationError(
                variable,
                f"value {place} of {variable} is shorter than {least} bytes; make one with: openssl rand -hex 32",
            )


def is_loopback(host: str) -> bool:
    """Return whether a process that listens on `host` can be reached only from this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
