"""`make services-stop` ends the servers that `make services` started, and no other process."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import services
from tests.support.eventually import PATIENCE, eventually

#: The background process without servers.
RUNNING = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tests.support import services
services._PID, services._ADDRESSES = Path(sys.argv[1]), Path(sys.argv[2])
services.start_kafka = services.start_postgres = lambda _: SimpleNamespace(bootstrap="", url="", stop=print)
sys.exit(services._run())
"""


@pytest.fixture(autouse=True)
def _own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_PID", tmp_path / "services.pid")
    monkeypatch.setattr(services, "_ADDRESSES", tmp_path / "services.env")


@pytest.fixture
def innocent() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(["sleep", "3600"])
    yield process
    process.kill()
    process.wait()


def test_a_stale_number_of_another_process_ends_nothing(
    innocent: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    """After a crash or a restart of the machine another program may have the number."""
    services._PID.write_text(str(innocent.pid))
    assert services._stop() == 0
    assert "do not run" in capsys.readouterr().out
    with pytest.raises(subprocess.TimeoutExpired):
        innocent.wait(0.2)


def test_the_running_process_ends_also_if_the_number_before_it_was_stale(
    innocent: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    services._PID.write_text(str(innocent.pid))
    files = [str(services._PID), str(services._ADDRESSES)]
    running = subprocess.Popen([sys.executable, "-c", RUNNING, *files])
    try:
        eventually(services._ADDRESSES.exists, 60)
        assert services._runs()
        assert services._stop() == 0
        assert running.wait(10 * PATIENCE) == 0
    finally:
        running.kill()
        running.wait()
    assert "have stopped" in capsys.readouterr().out
    assert (services._PID.exists(), innocent.poll()) == (False, None)
