"""Reads when the certificates in a file expire. A changed file is read again, because certificates are replaced while a
process runs.
"""

import time
from collections.abc import Callable
from pathlib import Path

import structlog
from cryptography.x509 import load_pem_x509_certificates

_log = structlog.get_logger(__name__)


class CertificateFile:
    """A PEM file with one certificate or more.

    Of the certificates that have not expired, the first one to expire counts: a file has an old and a new authority
    while an authority is replaced. If all have expired, the last one to expire counts.

    Args:
        setting: the setting that names the file, for the log.
        now: seconds since 1970 UTC.
    """

    def __init__(self, setting: str, path: Path, now: Callable[[], float] = time.time) -> None:
        self._setting = setting
        self._path = path
        self._now = now
        self._read: tuple[int, int] | None = None
        self._ends: list[float] = []

    def expires_s(self) -> float:
        """Return the seconds until the certificate expires; negative: it has expired. 0: the file cannot be read, which
        is logged once.
        """
        try:
            stat = self._path.stat()
            if self._read != (stat.st_mtime_ns, stat.st_size):
                self._read = stat.st_mtime_ns, stat.st_size
                self._ends = _ends(self._path)
        except (OSError, ValueError) as error:
            if self._ends or self._read is None:
                _log.warning("certificate_unreadable", setting=self._setting, error=type(error).__name__)
            self._read, self._ends = (0, 0), []
        if not self._ends:
            return 0.0
        now = self._now()
        left = [end for end in self._ends if end > now]
        return (min(left) if left else max(self._ends)) - now


def _ends(path: Path) -> list[float]:
    """Return the end of each certificate, seconds since 1970 UTC. Raises: OSError, ValueError."""
    certificates = load_pem_x509_certificates(path.read_bytes())
    return [certificate.not_valid_after_utc.timestamp() for certificate in certificates]
