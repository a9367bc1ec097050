"""Finds the certificate files that the settings name, and exports when they expire."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from connectors.config.connections import revealed
from connectors.config.settings import Settings
from connectors.telemetry.metrics import Metrics

#: Parameters of a database URL that name a file with certificates.
_OF_POSTGRES = ("sslrootcert", "sslcert")


def certificate_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield each file with certificates that a setting names, and the setting."""
    of_kafka = {"KAFKA_SSL_CAFILE": settings.kafka_ssl_cafile, "KAFKA_SSL_CERTFILE": settings.kafka_ssl_certfile}
    yield from ((setting, path) for setting, path in of_kafka.items() if path is not None)
    query = parse_qs(urlsplit(revealed(settings.postgres_url)).query)
    for parameter in _OF_POSTGRES:
        for name in query.get(parameter, ())[:1]:
            if name != "system":
                yield f"DATABASE_URL {parameter}", Path(name)


def watch_certificates(settings: Settings, metrics: Metrics) -> None:
    """Export when each of these certificates ends."""
    for setting, path in certificate_files(settings):
        from connectors.telemetry.certificate_end import CertificateFile  # most processes do not need x509

        metrics.watch_certificate(setting, CertificateFile(setting, path).expires_s)
