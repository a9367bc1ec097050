"""A Kafka and a Postgres to try Meterbridge out with, in the background: `make services`, `make services-stop`.

They are the servers of the tests, on free ports of loopback, with data that is deleted when they stop. Servers that
`KAFKA_BOOTSTRAP_SERVERS` and `DATABASE_URL` name are used instead. Their addresses are in `.meterbridge/services.env`,
which a shell can source.

The background process locks the file with its number until it ends, however it ends. A number in an unlocked file is stale,
and may be another program's.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.kafka import start_kafka
from tests.support.postgres import start_postgres

_FOLDER = Path(__file__).parents[2] / ".meterbridge"
_ADDRESSES, _LOG, _PID = (_FOLDER / f"services.{kind}" for kind in ("env", "log", "pid"))
#: The first start fetches Kafka (54 MB).
_START_LIMIT_S = 600


def _start() -> int:
    """Start both servers unless they run; return when both answer."""
    if _runs():
        print("Kafka and Postgres run already.")
        return _say_where()
    _FOLDER.mkdir(exist_ok=True)
    _ADDRESSES.unlink(missing_ok=True)
    print("Starting Kafka and Postgres (the first time Kafka is fetched, 54 MB) ...", flush=True)
    with _LOG.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.services", "--run"],
            cwd=_FOLDER.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_LIMIT_S
    while not _ADDRESSES.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            print(_LOG.read_text(encoding="utf-8").strip().splitlines()[-1], file=sys.stderr)
            print(
                "Type `make services` again: on a busy machine the start takes longer. All that was printed is in "
                ".meterbridge/services.log.",
                file=sys.stderr,
            )
            return 1
        time.sleep(0.1)
    return _say_where()


def _say_where() -> int:
    print(_ADDRESSES.read_text(encoding="utf-8"), end="")
    print("`. .meterbridge/services.env` sets these variables in your shell. `make services-stop` ends both.")
    return 0


def _run() -> int:
    """Run the background process; when it ends, the servers end."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with _PID.open("a", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        signal.signal(signal.SIGTERM, end)
        return _serve()


def _serve() -> int:
    """Run both servers until SIGTERM."""
    kafka = start_kafka(os.environ)
    try:
        postgres = start_postgres(os.environ)
        try:
            arriving = _ADDRESSES.with_suffix(".new")
            lines = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "DATABASE_URL": postgres.url}
            text = "".join(f"export {name}={value}\n" for name, value in lines.items())
            arriving.write_text(text, encoding="utf-8")
            arriving.rename(_ADDRESSES)
            signal.pause()
        except KeyboardInterrupt:
            return 0
        finally:
            postgres.stop()
    finally:
        kafka.stop()
        _ADDRESSES.unlink(missing_ok=True)
        _PID.unlink(missing_ok=True)
    return 0


def _stop() -> int:
    if not _runs():
        print("Kafka and Postgres do not run.")
        return 0
    os.kill(int(_PID.read_text(encoding="utf-8")), signal.SIGTERM)
    while _runs():
        time.sleep(0.1)
    print("Kafka and Postgres have stopped; their data is deleted.")
    return 0


def _runs() -> bool:
    """Return whether a process holds the lock of the file."""
    try:
        with _PID.open(encoding="utf-8") as asked:
            fcntl.flock(asked, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


if __name__ == "__main__":
    sys.exit({"--run": _run, "--stop": _stop}.get("".join(sys.argv[1:]), _start)())
