"""Options and functions that several parsers share."""

from typing import Annotated, Any, Final

import typer

from connectors.cli.parsers.unexpected import Commands

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Delimiter = Annotated[str, typer.Option(help="Delimiter of a CSV file: ',' (default), ';', '|' or tab.")]
Customer = Annotated[str, typer.Option(help="Only this LiteLLM customer id.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done and its amount; change nothing.")]
TrustLogFrom = Annotated[
    str | None,
    typer.Option(
        help="You confirm that the usage log is complete from this moment on; only where it cannot know that itself."
    ),
]
Principal = Annotated[
    str,
    typer.Option(
        "--principal",
        help="How Kafka names the account of each role: {role} stands for ingress, meter, sink, retry, project, api or operator; "
        "without it the role follows at the end.",
    ),
]
Comment = Annotated[str, typer.Option("--comment", help="The reason, for the audit log.")]

#: The principals of the roles if `--principal` is not given.
PRINCIPAL: Final = "User:meterbridge-"
#: Without a default value, Typer loads pydantic to convert the value of a missing `--help`.
GROUP_CONTEXT: Final[dict[str, Any]] = {"default_map": {"help": False}}


def group(purpose: str) -> typer.Typer:
    """A group of commands, which shows its help if no command follows."""
    return Commands(help=purpose, no_args_is_help=True, context_settings=GROUP_CONTEXT)
