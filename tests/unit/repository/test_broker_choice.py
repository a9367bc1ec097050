"""The tests' broker is a container only if a container engine can get its image; otherwise it comes from Maven."""

from typing import Any

import pytest
from docker.errors import DockerException, ImageNotFound, NotFound

from tests.support.kafka.docker import has_images


class Engine:
    """A container engine with some images, and a registry with others; `None`: cannot be reached."""

    def __init__(self, has: set[str], registry: set[str] | None) -> None:
        self.images, self._has, self._registry = self, has, registry

    def __call__(self, timeout: float) -> Any:
        return self

    def ping(self) -> bool:
        return True

    def get(self, snapshot: str) -> str:
        if snapshot not in self._has:
            raise ImageNotFound(snapshot)
        return snapshot

    def pull(self, snapshot: str) -> None:
        if self._registry is None:
            raise DockerException("no registry can be reached")
        if snapshot not in self._registry:
            raise NotFound(snapshot)
        self._has.add(snapshot)


@pytest.mark.parametrize(
    ("engine", "usable"),
    [
        (Engine({"kafka", "reaper"}, None), True),
        (Engine({"kafka"}, {"reaper"}), True),
        (Engine({"kafka"}, None), False),
        (Engine(set(), {"kafka"}), False),
    ],
)
def test_an_engine_that_cannot_get_the_image_is_not_used(engine: Engine, usable: bool) -> None:
    """377 tests failed on a machine whose engine answered but reached no registry."""
    assert has_images(engine, ("kafka", "reaper")) is usable


def test_without_an_engine_no_container_is_used() -> None:
    def refused(timeout: float) -> Any:
        raise DockerException("connection refused")

    assert not has_images(refused, ("kafka",))
