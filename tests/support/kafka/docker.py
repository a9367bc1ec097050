"""Apache Kafka in a container (testcontainers), with the settings of the Maven broker.

The port is bound explicitly, the same inside and outside: an address that Docker chose would change
on restart, and the broker advertises what it was told at its start.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from tests.support.kafka.node import VERSION, single_node, wait_until_it_answers
from tests.support.ports import free_port

_IMAGE = f"apache/kafka:{VERSION}"
_START_LIMIT_S = 90
_PULL_LIMIT_S = 300


@cache
def docker_has_kafka() -> bool:
    """Return a Docker engine answers within three seconds, and has the images that a broker needs or can pull them."""
    import docker  # type: ignore[import-untyped]  # it ships no types
    from testcontainers.core.config import testcontainers_config as config

    reaper = () if config.ryuk_disabled else (config.ryuk_image,)
    return has_images(docker.from_env, (_IMAGE, *reaper))


def has_images(connect: Callable[..., Any], images: Sequence[str]) -> bool:
    """Return whether the engine that `connect` reaches has the images, or has pulled them; an engine may reach no
    registry.
    """
    from docker.errors import DockerException, ImageNotFound

    try:
        connect(timeout=3).ping()
        engine = connect(timeout=_PULL_LIMIT_S)
        for snapshot in images:
            try:
                engine.images.get(snapshot)
            except ImageNotFound:
                engine.images.pull(snapshot)
    except (DockerException, OSError):
        return False
    return True


class DockerKafka:
    """A broker in a container; testcontainers' reaper removes it when this process ends."""

    def __init__(self, broker_settings: Mapping[str, str] | None = None) -> None:
        from testcontainers.core.container import DockerContainer

        port = free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        container = DockerContainer(_IMAGE)
        container.ports[port] = ("127.0.0.1", port)  # with_bind_ports knows no address: it would open every interface
        for name, value in single_node(port, "/tmp/kafka-data", broker_settings, listen="0.0.0.0").items():
            container = container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
        container.start()
        self._container = container
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def describe(self) -> str:
        return f"real Kafka {VERSION} in Docker at {self.bootstrap}"

    def kill(self) -> None:
        wrapped = self._wrapped()
        wrapped.kill()
        wrapped.wait()

    def restart(self) -> None:
        self._wrapped().restart()
        self._wait()

    def stop(self) -> None:
        self._container.stop()

    def _wait(self) -> None:
        wait_until_it_answers(self.bootstrap, self._runs, self._last_words, _START_LIMIT_S)

    def _runs(self) -> bool:
        wrapped = self._wrapped()
        wrapped.reload()
        return wrapped.status in {"created", "restarting", "running"}

    def _last_words(self) -> str:
        return bytes(self._wrapped().logs(tail=50)).decode(errors="replace")

    def _wrapped(self) -> Any:
        return self._container.get_wrapped_container()
