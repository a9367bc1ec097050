"""Apache Kafka from Maven Central: one KRaft node on loopback, data in a temporary folder."""

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from tests.support import guard
from tests.support.kafka.node import VERSION, single_node, wait_until_it_answers
from tests.support.ports import free_port

HERE = Path(__file__).parent
CACHE = HERE.parents[2] / ".cache" / "kafka"
_START_LIMIT_S = 90


def jars() -> Path:
    """The folder with the broker's jars, fetched by Maven the first time (54 MB).

    Raises:
        RuntimeError: there is no Maven, or it failed; with the end of its output.
    """
    pom = HERE / "pom.xml"
    folder = CACHE / sha256(pom.read_bytes()).hexdigest()[:12]
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError("no Kafka to test with: set KAFKA_BOOTSTRAP_SERVERS, or start Docker, or install Maven")
    CACHE.mkdir(parents=True, exist_ok=True)
    arriving = Path(tempfile.mkdtemp(dir=CACHE))
    copy = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    fetched = subprocess.run(
        [*copy, f"-DoutputDirectory={arriving}", "-DincludeScope=runtime"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if fetched.returncode:
        shutil.rmtree(arriving)
        raise RuntimeError(f"Maven could not fetch Kafka:\n{fetched.stdout[-2000:]}")
    if folder.is_dir():  # another run was faster
        shutil.rmtree(arriving)
    else:
        arriving.rename(folder)
    return folder


def java_command(main_class: str, *arguments: str, heap: str = "256m") -> list[str]:
    """A command that runs a class of Kafka's jars, its warnings on stdout.

    Raises:
        RuntimeError: no Java, or see `jars`.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        raise RuntimeError("Kafka from Maven needs Java 17 or newer: set JAVA_HOME, or set KAFKA_BOOTSTRAP_SERVERS")
    logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.xml'}"
    return [java, f"-Xmx{heap}", logging, "-cp", f"{jars()}/*", main_class, *arguments]


class MavenKafka:
    """A broker of our own; it ends when this process ends. `environ`: further variables of its process."""

    def __init__(
        self,
        broker_settings: Mapping[str, str] | None = None,
        port: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._environ = os.environ | dict(environ or {})
        self.folder = Path(tempfile.mkdtemp(prefix="meterbridge-kafka-"))
        self.log = self.folder / "kafka.log"
        self._properties = self.folder / "server.properties"
        settings = single_node(self.port, str(self.folder / "data"), broker_settings)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._format()
            self._start()
        except BaseException:
            self.stop()
            raise

    def describe(self) -> str:
        return f"real Kafka {VERSION} from Maven at {self.bootstrap}"

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self._end(signal.SIGTERM)
        self._start()

    def stop(self) -> None:
        self._end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _format(self) -> None:
        storage = ["kafka.tools.StorageTool", "format", "-t", str(uuid.uuid4()), "-c", str(self._properties)]
        with self.log.open("ab") as log:
            done = subprocess.run(
                java_command(*storage), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            ).returncode
        if done:
            raise RuntimeError(f"Kafka could not format its storage:\n{self._last_words()}")

    def _start(self) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                java_command("kafka.Kafka", str(self._properties), heap="768m"),
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._process = process
        guard.adopt(process.pid, signal.SIGKILL, self.folder)
        wait_until_it_answers(self.bootstrap, lambda: process.poll() is None, self._last_words, _START_LIMIT_S)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.wait()
        guard.release(process.pid)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]
