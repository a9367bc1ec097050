"""The kinds of findings of the doctor, each with a stable code, a severity, a cause and a fix: findings.toml.

`python -m connectors.doctor.catalogue` prints docs/doctor.md.
"""

from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Final

from msgspec.toml import decode


class Severity(StrEnum):
    """How severe a finding is, the worst first.

    The first two happen in ordinary operation: at a restart, in a busy minute. `degraded` needs a further fault, or
    does not cost money. `ok` says that a setting is correct; it is the verdict if there is no worse finding.
    """

    MONEY_LOST = "money_lost"
    MONEY_DOUBLED = "money_doubled"
    DEGRADED = "degraded"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One kind of finding. Cause and fix are sentences that hold for each finding of the kind."""

    severity: Severity
    cause: str
    fix: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `sentence` says what was found, and where. It never contains a key or a token."""

    code: str
    sentence: str

    @property
    def severity(self) -> Severity:
        """The severity of its kind."""
        return KINDS[self.code].severity

    def as_object(self) -> dict[str, str]:
        """Return the finding as an object for JSON."""
        kind = KINDS[self.code]
        return {
            "code": self.code,
            "severity": kind.severity.value,
            "sentence": self.sentence,
            "cause": kind.cause,
            "fix": kind.fix,
        }


BY_SUBJECT: Final = decode(
    files(__package__).joinpath("findings.toml").read_bytes(), type=dict[str, dict[str, FindingKind]]
)
LITELLM: Final = BY_SUBJECT["litellm"]
KINDS: Final = {code: kind for kinds in BY_SUBJECT.values() for code, kind in kinds.items()}
#: Titles of docs/doctor.md, by the subject in findings.toml.
_TITLES: Final = {
    "litellm": "LiteLLM",
    "endpoint": "The address to which LiteLLM posts",
    "versions": "LiteLLM's version",
    "own": "Meterbridge's own settings",
    "provider_keys": "Users' provider keys",
    "kafka": "Kafka's topics and rights",
    "lago": "Lago",
}

_HEAD: Final = """\
# What `meterbridge doctor` finds

<!-- Written by `python -m connectors.doctor.catalogue`; change connectors/doctor/findings.toml or catalogue.py. -->

`meterbridge doctor --config config.yaml` reads a configuration of LiteLLM's proxy, or asks a running one (`--url`, by
default `LITELLM_API_URL` with `LITELLM_MASTER_KEY`), the address to which it posts, the environment of Meterbridge, Kafka's topics and rights (where `KAFKA_BOOTSTRAP_SERVERS` is
set), Lago (unless `--no-lago`), and the stored provider keys (where `PROVIDER_KEYS_SECRET` is set).
It changes nothing. It prints its findings. Where LiteLLM's configuration has a finding or could not be read, it also prints the configuration, the
environment and the order of stopping LiteLLM that lose least: calls that LiteLLM has collected since its last flush are lost with its process.
With `--json` it prints one object, always with the configuration.

| exit code | means |
|---|---|
| 0 | nothing loses or doubles money; there may be findings that are `degraded` |
| 1 | something loses or doubles money |
| 2 | LiteLLM, Kafka or Lago could not be read, and nothing worse was found |

`money_lost` and `money_doubled` happen in ordinary operation: at a restart, in a busy minute. `degraded` needs
another fault, or costs something else than money. `ok` says what was looked up and is as it should be.

A running proxy shows its version, the names of its callbacks, those that have a logger, and the addresses of the built-in ones. It
does not show retries, headers, time-outs and switches: those are only in its file. Give both to have both checked.
"""


def page() -> str:
    """Return the text of docs/doctor.md."""
    lines = [_HEAD]
    for subject, title in _TITLES.items():
        lines += [f"## {title}", "", "| code | severity | cause | what to do |", "|---|---|---|---|"]
        lines += [
            f"| `{code}` | `{kind.severity}` | {kind.cause} | {kind.fix} |"
            for code, kind in BY_SUBJECT[subject].items()
        ]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201  # this is what it is for
