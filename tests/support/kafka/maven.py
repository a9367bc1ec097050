"""Apache Kafka from Maven Central: one KRaft node on loopback, data in a folder of its own.

A test's broker lives for minutes and serves little: most of its CPU time would be the loading of classes and the
compiler. So it maps an archive of its classes (`class_archive`, made once a clone) and stops at the first compiler.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from tests.support import guard
from tests.support.kafka.node import VERSION, single_node, wait_until_it_answers
from tests.support.kafka.storage import format_storage
from tests.support.ports import free_port
from tests.support.server_folder import server_folder

HERE = Path(__file__).parent
CACHE = HERE.parents[2] / ".cache" / "kafka"
_START_LIMIT_S = 180
#: Of the JVM, for a broker that lives for minutes. A benchmark leaves them out: they cost throughput.
_SHORT_LIVED = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def jars() -> Path:
    """Return the folder with the broker's jars, fetched by Maven the first time (54 MB).

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


def class_archive() -> Path:
    """Return where the classes of a started broker are, as this Java maps them into memory; the file need not exist."""
    java = Path(_java()).resolve()
    of_this_java = sha256(f"{java} {java.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    return jars().with_suffix(f".{of_this_java}.jsa")


def make_class_archive() -> None:
    """Start a broker once and write down its classes, unless that was done. Java without it starts slower, no more."""
    archive = class_archive()
    if archive.exists():
        return
    arriving = archive.with_suffix(f".{os.getpid()}")
    broker = MavenKafka(options=(*_SHORT_LIVED, f"-XX:ArchiveClassesAtExit={arriving}"))
    broker.end()
    broker.stop()
    if arriving.exists():
        arriving.rename(archive)


def short_lived() -> tuple[str, ...]:
    """Options of the JVM for a broker of a test."""
    archive = class_archive()
    return (*_SHORT_LIVED, *((f"-XX:SharedArchiveFile={archive}",) if archive.exists() else ()))


def java_command(main_class: str, *arguments: str, heap: str = "256m", options: Sequence[str] = ()) -> list[str]:
    """Return a command that runs a class of Kafka's jars with these options of the JVM, its warnings on stdout.

    Raises:
        RuntimeError: no Java, or see `jars`.
    """
    logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.xml'}"
    return [_java(), f"-Xmx{heap}", *options, logging, "-cp", f"{jars()}/*", main_class, *arguments]


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        raise RuntimeError("Kafka from Maven needs Java 17 or newer: set JAVA_HOME, or set KAFKA_BOOTSTRAP_SERVERS")
    return java


class MavenKafka:
    """A broker of our own; it ends when this process ends.

    `environ`: further variables of its process. `options`: of its JVM; by default those of `short_lived`.
    `cluster`: the id that all nodes of a cluster share (tests/support/kafka/cluster.py); such a node answers only with the others,
    so it is not waited for.
    """

    def __init__(
        self,
        broker_settings: Mapping[str, str] | None = None,
        port: int | None = None,
        environ: Mapping[str, str] | None = None,
        options: Sequence[str] | None = None,
        cluster: str | None = None,
    ) -> None:
        self._options = short_lived() if options is None else tuple(options)
        self.port = port or free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._environ = os.environ | dict(environ or {})
        self.folder = server_folder("kafka")
        self.log = self.folder / "kafka.log"
        self._properties = self.folder / "server.properties"
        settings = single_node(self.port, str(self.folder / "data"), broker_settings)
        self._node = settings["node.id"]
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._format(cluster or str(uuid.uuid4()))
            self._launch()
            if cluster is None:
                self.wait()
        except BaseException:
            self.stop()
            raise

    def describe(self) -> str:
        return f"real Kafka {VERSION} from Maven at {self.bootstrap}"

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self._end(signal.SIGTERM)
        self._launch()
        self.wait()

    def emptied(self) -> None:
        """SIGKILL, then a new cluster without a topic at the same address: its disk was lost."""
        self.kill()
        shutil.rmtree(self.folder / "data")
        self._format(str(uuid.uuid4()))
        self.restart()

    def end(self) -> None:
        """Let the broker end as it would by itself."""
        self._end(signal.SIGTERM)

    def stop(self) -> None:
        self._end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _format(self, cluster: str) -> None:
        format_storage(jars().with_suffix(".formatted"), java_command, self.folder / "data", self._node, cluster)

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                java_command("kafka.Kafka", str(self._properties), heap="768m", options=self._options),
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._process = process
        guard.adopt(process.pid, signal.SIGKILL, self.folder)

    def wait(self) -> None:
        """Return once it answers."""
        process = self._process
        wait_until_it_answers(
            self.bootstrap, lambda: process is not None and process.poll() is None, self.last_words, _START_LIMIT_S
        )

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.wait()
        guard.release(process.pid)

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-3000:]
