"""Writes docs/configuration.md from the settings: `python -m connectors.config.configuration_page` prints it."""

from typing import Final

from pydantic import ByteSize

from connectors.config.read_by import readers_shown
from connectors.config.settings import VARIABLES, Settings
from schemas.policy import OutOfPeriodPolicy

#: The settings with which a section of docs/configuration.md begins.
_CHAPTERS: Final = {
    "kafka_bootstrap_servers": "Kafka",
    "lago_api_url": "Lago and LiteLLM",
    "webhook_secret": "Ports and trust",
    "window_seconds": "Metering",
    "max_retries": "Delivery",
    "database_url": "Postgres and Redis",
    "lago_organizations": "Several Lago organisations",
    "canary_url": "The canary",
    "oidc_user_claim": "Credits and Stripe",
    "outgoing_webhook_allow_http": "Outgoing webhooks",
    "log_level": "Logging",
    "tracing_enabled": "Traces",
}


def configuration_page() -> str:
    """Return the text of docs/configuration.md: every variable with its default and meaning."""
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
        "<!-- Written by `python -m connectors.config.configuration_page`; change connectors/config/settings.py or read_by.py instead. -->",
    ]
    for variable, name in VARIABLES.items():
        if name in _CHAPTERS:
            lines += [
                "",
                f"## {_CHAPTERS[name]}",
                "",
                "| variable | default | read by | meaning |",
                "|---|---|---|---|",
            ]
        field = Settings.model_fields[name]
        lines.append(f"| `{variable}` | {_shown(field.default)} | {readers_shown(name)} | {field.description} |")
    return "\n".join(lines) + "\n"


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
