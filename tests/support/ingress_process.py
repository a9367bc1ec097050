"""`meterbridge serve --only webhooks` as a process of its own: killed, stopped and started again on the same port."""

import os
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support import guard, warm
from tests.support.eventually import eventually
from tests.support.ports import free_port

_NOTHING = Path("/nonexistent")


@dataclass
class IngressProcess:
    """An ingress in front of the broker at `bootstrap`.

    Fields:
        settings: further variables.
        ahead_s: how far its machine's clock is ahead of everybody's.
        only: the parts that it serves.
        descriptors: how many it may have (`RLIMIT_NOFILE`); 0 = as many as we may.
    """

    bootstrap: str
    prefix: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    ahead_s: float = 0.0
    only: str = "webhooks"
    descriptors: int = 0
    _process: warm.Started | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "ingress.log"

    def start(self) -> None:
        """Start it and return when it accepts calls; with a spool, Kafka may be down."""
        self.spawn()
        eventually(self.takes_calls, 30)

    def spawn(self) -> warm.Started:
        """Start it and return at once."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "LAGO_"))}
        environ |= {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "KAFKA_PARTITIONS": "3",
            "TOPIC_PREFIX": self.prefix,
            "ALLOW_UNAUTHENTICATED": "1",
            "PORT": str(self.port),
            "METRICS_PORT": str(self.metrics_port),
            **self.settings,
        }
        # Modules that were loaded before the clock was replaced would have the right one.
        start = warm.start_anew if self.ahead_s else warm.start
        clock = ["tests.support.wrong_clock", str(self.ahead_s)] if self.ahead_s else ["connectors"]
        limited = ["prlimit", f"--nofile={self.descriptors}"] if self.descriptors else []
        command = [*limited, sys.executable, "-m", *clock, "serve", "--only", self.only]
        with self.log.open("ab") as log:
            process = start(command, environ, log.fileno(), log.fileno())
        guard.adopt(process.pid, signal.SIGKILL, _NOTHING)
        self._process = process
        return process

    def takes_calls(self) -> bool:
        """Return whether `/health/ready` says that the ingress accepts calls."""
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}/health/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float:
        """Return a metric without labels."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False).text
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found, name
        return float(found[1])

    def forget_peak(self) -> None:
        """Let `peak_mib` begin with what it has now."""
        assert self._process is not None
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")  # proc(5)

    def peak_mib(self) -> int:
        """Return the most memory that it had so far."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) >> 10  # type: ignore[index]

    def drained(self) -> bool:
        """Whether its spool is empty."""
        return self.metric("meterbridge_spool_records") == 0

    def kill(self) -> None:
        """SIGKILL; twice does nothing."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals = signal.SIGTERM, limit_s: float = 10) -> int:
        """Send it a signal; its exit code. Raises: subprocess.TimeoutExpired: it took longer than `limit_s`."""
        process = self._process
        if process is None:
            return 0
        process.send_signal(how)
        code = process.wait(limit_s)
        self._process = None
        guard.release(process.pid)
        return code
