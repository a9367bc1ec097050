"""The commands of docs/kafka.md secure a real Kafka unchanged: one account for each role, by password and by
certificate.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.litellm.recommended import working_yaml
from tests.support.kafka.maven import java_command, short_lived
from tests.support.kafka.secured import ADMIN, CERTIFICATE, PASSWORD, SCRAM, SecuredKafka
from tests.support.page_shell import ROOT, PageShell, blocks

pytestmark = pytest.mark.kafka

#: Programs of Kafka that the page names, and the class of each in its jars.
PROGRAMS = {"kafka-configs.sh": "kafka.admin.ConfigCommand"}
_LIMIT_S = 240.0


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[SecuredKafka]:
    """A broker that knows only the administrator."""
    keys = tmp_path / "keys"
    keys.mkdir()
    broker = SecuredKafka(keys, accounts=(ADMIN,))
    yield broker
    broker.kafka.stop()


@pytest.mark.long
async def test_the_page_secures_a_kafka(secured: SecuredKafka, tmp_path: Path) -> None:
    folder, programs = tmp_path / "reader", tmp_path / "programs"
    for one in (folder, programs):
        one.mkdir()
    for name, main in PROGRAMS.items():
        command = shlex.join(java_command(main, options=short_lived()))
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    _what_a_reader_has(folder, secured)
    written = {
        r"kafka:9093": f"127.0.0.1:{secured.ports[SCRAM]}",
        r"kafka:9094": f"127.0.0.1:{secured.ports[CERTIFICATE]}",
        r"KAFKA_REPLICATION_FACTOR=3": "KAFKA_REPLICATION_FACTOR=1",
    }
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    keys = {"WEBHOOK_TOKEN": "a-token-of-thirty-two-characters", "LAGO_API_KEY": "any"}
    environ = {"PATH": path, "COLUMNS": "250", "LOG_LEVEL": "error", **keys}
    shell = PageShell(folder, environ, written, "no-prefix", forked=True)
    await shell.start()
    try:
        for block in blocks(ROOT / "docs" / "kafka.md"):
            await shell.run(block, _LIMIT_S)
    finally:
        await shell.stop()


def _what_a_reader_has(folder: Path, secured: SecuredKafka) -> None:
    """The administrator's account, the authority, and LiteLLM's configuration."""
    (folder / "ca.pem").write_bytes(secured.authority.cafile.read_bytes())
    (folder / "ca.key").write_bytes(secured.authority.key())
    (folder / "admin.password").write_text(PASSWORD)
    (folder / "admin.properties").write_text(secured.admin_properties())
    (folder / "config.yaml").write_text(working_yaml())
