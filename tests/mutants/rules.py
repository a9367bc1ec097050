"""Which modules are mutated, the mistakes that are tried first, and the reviewed survivors."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
#: Modules of these folders decide about money, about who pays, or about who may come in: new ones are in by themselves.
FOLDERS = ("streams/core", "connectors/access")
#: Of these folders all but the following, which decide about nothing of that.
LEFT_OUT = {
    "streams/core/delivery/retry_after.py": "shows when to ask again",
    "streams/core/delivery/backoff.py": "shows when to ask again",
    "streams/core/delivery/circuit_breaker.py": "shows when to ask again",
    "streams/core/delivery/rate_limiter.py": "shows how often to ask",
    "streams/core/metering/notices.py": "names and amounts for metrics and log lines; the counters that must add up are the fold's",
}
#: Beside those folders.
OTHERS = (
    "schemas/customer_id.py",
    "schemas/moments.py",
    "schemas/money.py",
    "schemas/rounding.py",
    "connectors/api/authorizer.py",
    "connectors/api/credit_accounts.py",
    "connectors/ingest/auth.py",
    "connectors/ingest/sender_signatures.py",
    "connectors/lago/webhook_signatures.py",
)
NAMED = "named"


class Mutant(msgspec.Struct):
    """One small change of a file: its `line` contains `was` and then `becomes`; `text` is the whole file after it."""

    file: str
    operator: str
    line: int
    was: str
    becomes: str
    text: str

    def printed(self) -> str:
        """The text for the output."""
        return f"{self.file}:{self.line} {self.operator}\n    - {self.was}\n    + {self.becomes}"


class Mistake(msgspec.Struct):
    """A mistake that no operator of the tool makes: `was` occurs once in `file`; `why` says what it would cost."""

    file: str
    was: str
    becomes: str
    why: str

    def mutant(self) -> Mutant:
        """The file with the mistake in it. Raises: ValueError: `was` does not occur exactly once."""
        source = (ROOT / self.file).read_text(encoding="utf-8")
        before, *rest = source.split(self.was)
        if len(rest) != 1:
            raise ValueError(f"{self.file} has it {len(rest)} times: {self.was}")
        line, text = before.count("\n") + 1, source.replace(self.was, self.becomes)
        return Mutant(self.file, NAMED, line, self.was, self.becomes, text)


def rules() -> list[str]:
    """The files that are mutated by default, relative to the root."""
    found = [one for folder in FOLDERS for one in sorted((ROOT / folder).rglob("*.py")) if one.name != "__init__.py"]
    inside = [str(one.relative_to(ROOT)) for one in found]
    return [file for file in inside if file not in LEFT_OUT] + list(OTHERS)


def mistakes(files: Sequence[str] | None = None) -> list[Mistake]:
    """The named mistakes, of the given files or of all."""
    listed = _read("named.toml").get("mistake", [])
    every = msgspec.convert(listed, list[Mistake])
    return [one for one in every if files is None or one.file in files]


def accepted() -> dict[tuple[str, str, str], str]:
    """Reviewed survivors, by file, line and what it becomes, with the reason."""
    listed = _read("accepted.toml").get("accepted", [])
    return {(one["file"], one["was"], one["becomes"]): one["reason"] for one in listed}


def _read(name: str) -> dict[str, list[dict[str, str]]]:
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))
