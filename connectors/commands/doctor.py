"""`meterbridge doctor`: what loses or doubles money, and the configuration of LiteLLM that does neither."""

from pathlib import Path
from typing import Annotated

import typer

from connectors.commands.base import AsJson, one_sentence, settings_of_command


def doctor(
    config: Annotated[
        Path | None, typer.Option(help="LiteLLM's config.yaml; it is only read.", show_default=False)
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="A running LiteLLM proxy, asked with LITELLM_MASTER_KEY. Default: LITELLM_API_URL, without --config."
        ),
    ] = None,
    as_json: AsJson = False,
    with_lago: Annotated[bool, typer.Option("--lago/--no-lago", help="Check Lago too.")] = True,
) -> None:
    """List settings of LiteLLM, of Meterbridge and of Lago that lose or double money. Exit code 0: none; 1: some; 2: not readable."""
    from connectors.doctor.run import run_doctor

    with one_sentence():
        settings = settings_of_command()
        if config is None and url is None:
            url = settings.litellm_api_url
        raise typer.Exit(run_doctor(settings, config, url, as_json=as_json, with_lago=with_lago))
