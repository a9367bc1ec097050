"""One Ctrl-C ends any command in any kind of wait; and output works on every terminal."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.eventually import PATIENCE, eventually
from tests.support.ports import free_port


@dataclass
class Silent:
    """A server that accepts connections and never answers."""

    port: int
    taken: list[socket.socket] = field(default_factory=list)


@pytest.fixture
def silent() -> Iterator[Silent]:
    listener = socket.create_server(("127.0.0.1", 0))
    found = Silent(listener.getsockname()[1])

    def take() -> None:
        while True:
            try:
                found.taken.append(listener.accept()[0])
            except OSError:
                return

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    yield found
    listener.shutdown(socket.SHUT_RDWR)  # close() alone leaves the thread in accept(), soon on the next test's socket
    taker.join()
    listener.close()
    for one in found.taken:
        one.close()


@contextmanager
def command(words: list[str], environ: dict[str, str], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a person's shell starts it; its stdin stays open."""
    with out.open("wb") as result:
        process = subprocess.Popen(
            [sys.executable, "-m", "connectors", *words],
            env={"PATH": os.environ["PATH"], "METRICS_PORT": "0", "LOG_LEVEL": "error", **environ},
            stdin=subprocess.PIPE,
            stdout=result,
            stderr=result,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # it takes no lock
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def environ_of(silent: Silent) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.port}",
        "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{silent.port}/db",
        "LITELLM_DATABASE_URL": f"postgresql://u:p@127.0.0.1:{silent.port}/db",
        "LAGO_API_URL": f"http://127.0.0.1:{silent.port}",
        "LAGO_API_KEY": "key",
        "LITELLM_MASTER_KEY": "sk-1234",
    }


@pytest.mark.parametrize(
    "words",
    [
        "topics create",
        "topics check",
        "db migrate",
        "dlq list",
        "held list",
        "replay --from 1h --to 5m",
        "backfill --source jsonl --file -",
        "backfill --source litellm-db",
        "import mappings -",
        "explain --request x",
        "reconcile",
        "lago setup --check",
        "keys list",
        "migrate-orgs --mapping-sql {sql}",
    ],
)
def test_a_command_that_waits_for_a_silent_server_ends_at_once(words: str, silent: Silent, tmp_path: Path) -> None:
    """librdkafka waits in C, asyncpg in a task, an import in a thread: Ctrl-C works the same."""
    out, sql = tmp_path / "out", tmp_path / "users.sql"
    sql.write_text("SELECT 1")
    with command([word.format(sql=sql) for word in words.split()], environ_of(silent), out) as process:
        eventually(lambda: bool(silent.taken) or process.poll() is not None, 60)
        assert process.poll() is None, out.read_text()
        process.send_signal(signal.SIGINT)
        code = process.wait(3 * PATIENCE)
    result = out.read_text()
    assert (code, "Traceback" in result) == (130, False), result
    assert "interrupted" in result


def test_a_command_ends_also_while_its_libraries_are_loaded(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with command(["topics", "check"], {}, out) as process:
        eventually(lambda: _blocks_sigint(process.pid), 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60 * PATIENCE) == 130
    assert "Traceback" not in out.read_text()


@pytest.mark.parametrize("words", ["serve", "worker --only meter", "lago-sandbox --port 0"])
def test_a_server_process_stops_cleanly_on_one_ctrl_c(words: str, silent: Silent, tmp_path: Path) -> None:
    out = tmp_path / "out"
    environ = {**environ_of(silent), "PORT": str(free_port()), "WEBHOOK_TOKEN": "webhook-token", "LOG_LEVEL": "info"}
    ready = {"serve": "serving", "lago-sandbox": "Lago sandbox on"}.get(words.split(maxsplit=1)[0])
    with command(words.split(), environ, out) as process:
        if ready is not None:
            eventually(lambda: ready in out.read_text(), 60)
        else:
            eventually(lambda: bool(silent.taken), 60)
        process.send_signal(signal.SIGINT)
        code = process.wait(60 * PATIENCE)
    assert (code in (0, 130), "Traceback" in out.read_text()) == (True, False), out.read_text()


@pytest.mark.parametrize("environ", [{"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_ALL": "C"}, {"LC_ALL": "POSIX"}])
def test_a_character_that_the_terminal_cannot_show_causes_no_traceback(environ: dict[str, str], tmp_path: Path) -> None:
    """Such a character is shown as its code, in JSON as an escape."""
    program = (
        "from connectors.cli.terminal import prepare; prepare(['x'])\n"
        "from connectors.cli.base import say, table_of\n"
        "from connectors.cli.sentences import fail\n"
        "say({'customer': 'Zo\\u00eb \\U0001F600'}, as_json=True, table=lambda: '')\n"
        "say({}, as_json=False, table=lambda: table_of(('customer',), [('Zo\\u00eb',)]))\n"
        "fail('no such customer: Zo\\u00eb', 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        check=False,
    )
    text = done.stdout.decode("utf-8") + done.stderr.decode("utf-8")
    assert "UnicodeEncodeError" not in text
    assert "no such customer" in text
    if environ.get("PYTHONIOENCODING"):
        assert r'{"customer":"Zo\u00eb \ud83d\ude00"}' in text
        assert r"Zo\xeb" in text


def _blocks_sigint(pid: int) -> bool:
    """Before that Python has not reached our first line."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    blocked = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:"))
    return bool(blocked & 1 << (signal.SIGINT - 1))
