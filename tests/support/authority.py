"""A certificate authority of the tests: it signs the certificates of brokers and of clients, as PEM files."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate, its key, and both in one file as Kafka's brokers take them (`ssl.keystore.type=PEM`)."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates; `cafile` is its own. All files are in `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        built = self._begun(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        signed = built.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.cafile = folder / f"{name}.pem"
        self.cafile.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def broker(self, *hosts: str) -> Signed:
        """Make a certificate for a broker with these host names or addresses."""
        names = [x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts]
        return self._sign("broker", x509.SubjectAlternativeName(names), "")

    def client(self, name: str, password: str = "") -> Signed:
        """Make a certificate for a client; Kafka's principal is `User:CN=<name>`. `password`: of its key; `""` = not
        encrypted.
        """
        return self._sign(name, None, password)

    def key(self) -> bytes:
        """The authority's own key as PEM, for tests that sign with another program."""
        plain = serialization.NoEncryption()
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)

    def _sign(self, name: str, hosts: x509.SubjectAlternativeName | None, password: str) -> Signed:
        key = ec.generate_private_key(ec.SECP256R1())
        built = self._begun(_named(name), key).add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        built = built.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if hosts is not None:
            built = built.add_extension(hosts, critical=False)
        certificate = built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        sealed: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            sealed = serialization.BestAvailableEncryption(password.encode())
        text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
        created = Signed(*(self._folder / f"{name}.{ending}" for ending in ("crt", "key", "pem")))
        created.certificate.write_bytes(certificate)
        created.key.write_bytes(text)
        created.both.write_bytes(text + certificate)
        return created

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        built = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        return built.not_valid_before(now - _DAY).not_valid_after(now + _DAY)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
