"""Writes docs/configuration.md from the settings: `python -m connectors.config.configuration_page` prints it."""

from importlib.resources import files
from typing import Final

import msgspec
from pydantic import ByteSize

from connectors.config.settings import PARTS, VARIABLES, Settings
from schemas.policy import OutOfPeriodPolicy

#: The roles of `meterbridge serve`, `worker` and `canary`.
ROLES: Final = ("ingress", "api", "meter", "sink", "retry", "project", "canary")
COMMANDS: Final = "commands"


class _Notes(msgspec.Struct, forbid_unknown_fields=True):
    """The texts of configuration_page.toml."""

    required: frozenset[str]
    off: frozenset[str]
    production: dict[str, str]
    read_by: dict[str, tuple[str, ...]]


NOTES: Final = msgspec.toml.decode(files(__package__).joinpath("configuration_page.toml").read_bytes(), type=_Notes)


def configuration_page() -> str:
    """Return the text of docs/configuration.md: every variable with its default and meaning.

    Raises:
        ValueError: a setting is in no part of `PARTS`, so no chapter has it.
    """
    if outside := set(Settings.model_fields) - set(VARIABLES.values()) - {"unknown"}:
        raise ValueError(
            f"no chapter has {', '.join(sorted(outside))}: list its class in connectors/config/settings.py::PARTS"
        )
    lines = [
        "# Configuration",
        "",
        "All settings are environment variables; an empty one counts as not set. A malformed value stops the start, and the error names",
        "its variable. For an unknown variable that begins with `KAFKA_` or `LAGO_`, or differs from a setting by one or two letters,",
        "the log has a warning with the setting that was probably meant.",
        "",
        "A value may be in a file, as platforms mount secrets: `LAGO_API_KEY_FILE=/run/secrets/lago_api_key` sets `LAGO_API_KEY`. The last",
        "line break is removed. If both variables are set, the process does not start.",
        "",
        "*Read by*: the [roles](architecture.md#processes) `ingress`, `api`, `meter`, `sink`, `retry`, `project` and `canary`, and commands by their names;",
        "*commands*: several commands; *all*: every role, and commands. A role that does not use a setting still refuses a malformed value of it.",
        "`meterbridge doctor` examines many settings of other roles, so give it all of them.",
        "",
        "<!-- Written by `python -m connectors.config.configuration_page`; change the class of the subject in connectors/config or configuration_page.toml instead. -->",
    ]
    lines += ["", "## A production installation sets these", "", "| variable | why |", "|---|---|"]
    lines += [f"| `{name.upper()}` | {why} |" for name, why in NOTES.production.items()]
    lines += [
        "",
        "Below, *required* in place of a default: set a value (the table above says what happens without it); *off*: its feature is off without a value;",
        "*optional*: its meaning says what holds without a value.",
    ]
    for heading, part in PARTS.items():
        lines += ["", f"## {heading}", "", "| variable | default | read by | meaning |", "|---|---|---|---|"]
        for name, field in part.model_fields.items():
            lines.append(
                f"| `{name.upper()}` | {_shown(field.default) or _when_empty(name)} | {_readers(name)} | {field.description} |"
            )
    return "\n".join(lines) + "\n"


def _when_empty(name: str) -> str:
    if name in NOTES.required:
        return "*required*"
    return "*off*" if name in NOTES.off else "*optional*"


def _readers(name: str) -> str:
    known = ("all", *ROLES, COMMANDS)
    return ", ".join(one if one in known else f"`{one}`" for one in NOTES.read_by[name])


def _shown(default: object) -> str:
    match default:
        case None | () | "":
            return ""
        case bool():
            return f"`{str(default).lower()}`"
        case tuple():
            return f"`{','.join(default)}`"
        case ByteSize():
            return f"`{default.human_readable().replace('.0', '')}`"
        case OutOfPeriodPolicy():
            return f"`{default.value}`"
        case _:
            return f"`{default}`"


if __name__ == "__main__":
    print(configuration_page(), end="")  # noqa: T201  # printing is the purpose of the command
