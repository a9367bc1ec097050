"""A broker with an authorizer: it denies what no list allows, and knows its clients by SCRAM passwords or by certificates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from connectors.kafka.acls import ROLES
from tests.support.authority import Authority, Signed
from tests.support.eventually import PATIENCE
from tests.support.kafka.maven import MavenKafka
from tests.support.ports import free_port

PASSWORD = "a-password-of-an-account"
ADMIN = "admin"
ACCOUNTS = (ADMIN, *(f"meterbridge-{role}" for role in ROLES))
#: The doors: TLS with a SCRAM password, and TLS with a client's certificate; and the principals of the roles at each.
SCRAM, CERTIFICATE = "SASL_SSL", "SSL"
_SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
PRINCIPALS = {SCRAM: "User:meterbridge-", CERTIFICATE: "User:CN=meterbridge-{role}"}


class SecuredKafka:
    """A broker with a third listener, PLAINTEXT, for the test itself, which may do everything.

    `accounts` exist; `masters` of them may do everything.

    Attributes:
        kafka: the broker; its `bootstrap` is the listener PLAINTEXT.
    """

    def __init__(self, folder: Path, accounts: Sequence[str] = ACCOUNTS, masters: Sequence[str] = (ADMIN,)) -> None:
        self.authority = Authority(folder)
        self.ports = {name: free_port() for name in ("PLAINTEXT", SCRAM, CERTIFICATE)}
        controller = free_port()
        doors = {name: f"{name}://127.0.0.1:{port}" for name, port in self.ports.items()}
        listeners = ",".join([*doors.values(), f"CONTROLLER://127.0.0.1:{controller}"])
        settings = {
            "listeners": listeners,
            "advertised.listeners": ",".join(doors.values()),
            "listener.security.protocol.map": ",".join(f"{name}:{name}" for name in doors) + ",CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.authority.broker("127.0.0.1").both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.cafile),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": _SCRAM_LOGIN,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": _SCRAM_LOGIN,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": ";".join(["User:ANONYMOUS", *(f"User:{name};User:CN={name}" for name in masters)]),
        }
        self._certificates: dict[str, Signed] = {name: self.authority.client(name, PASSWORD) for name in accounts}
        self.kafka = MavenKafka(settings, port=self.ports["PLAINTEXT"])
        try:
            self._make_users(accounts)
        except BaseException:
            self.kafka.stop()
            raise

    def environ(self, account: str, door: str = SCRAM) -> Mapping[str, str]:
        """Return the settings of a process with this account at this listener."""
        shown = self._certificates[account]
        proof = {
            "KAFKA_SSL_CERTFILE": str(shown.certificate),
            "KAFKA_SSL_KEYFILE": str(shown.key),
            "KAFKA_SSL_KEY_PASSWORD": PASSWORD,
        }
        if door == SCRAM:
            proof = {
                "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
                "KAFKA_SASL_USERNAME": account,
                "KAFKA_SASL_PASSWORD": PASSWORD,
            }
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.ports[door]}",
            "KAFKA_SECURITY_PROTOCOL": door,
            "KAFKA_SSL_CAFILE": str(self.authority.cafile),
            **proof,
        }

    def admin_properties(self) -> str:
        """Return what Kafka's own programs read with `--command-config` to act as the administrator."""
        login = f'org.apache.kafka.common.security.scram.ScramLoginModule required username="{ADMIN}" password="{PASSWORD}";'
        return (
            "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nssl.truststore.type=PEM\n"
            f"ssl.truststore.location={self.authority.cafile}\nsasl.jaas.config={login}\n"
        )

    def _make_users(self, accounts: Sequence[str]) -> None:
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        created: dict[str, Any] = admin.alter_user_scram_credentials(
            [
                UserScramCredentialUpsertion(
                    name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode()
                )
                for name in accounts
            ]
        )
        for done in created.values():
            done.result(30 * PATIENCE)
