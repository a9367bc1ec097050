"""Another commit of this repository, installed in a folder, so that its program can run beside ours."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Checkout:
    """A work tree whose `make venv` has been run.

    Raises:
        FileNotFoundError: there is no `.venv` in the folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not self._program.exists():
            raise FileNotFoundError(f"{self._program}: run `make venv` in {self.folder} first")

    @property
    def program(self) -> tuple[str, ...]:
        """The command line of the checkout's `meterbridge`; the folder that it is started in does not matter."""
        return (str(self._program),)

    @property
    def python(self) -> str:
        """The interpreter of the checkout, which imports the checkout's modules."""
        return str(self.folder / ".venv" / "bin" / "python")

    @property
    def _program(self) -> Path:
        return self.folder.resolve() / ".venv" / "bin" / "meterbridge"
