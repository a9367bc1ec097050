"""`meterbridge doctor`: what loses or doubles money, and the configuration of LiteLLM that does neither."""

from pathlib import Path
from typing import Annotated

import typer

from connectors.commands.base import AsJson, one_sentence, settings_of_command


def doctor(
    config: Annotated[
        Path | None, typer.Option(help="LiteLLM's config.yaml; it is read, never changed.", show_default=False)
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="A running proxy, asked with LITELLM_MASTER_KEY; LITELLM_API_URL unless --config is given."),
    ] = None,
    as_json: AsJson = False,
    with_lago: Annotated[bool, typer.Option("--lago/--no-lago", help="Whether Lago is asked.")] = True,
) -> None:
    """Say what of LiteLLM, of these settings and of Lago loses or doubles money: 0 nothing, 1 something, 2 not readable."""
    from connectors.doctor.run import run_doctor

    with one_sentence():
        settings = settings_of_command()
        if config is None and url is None:
            url = settings.litellm_api_url
        raise typer.Exit(run_doctor(settings, config, url, as_json=as_json, with_lago=with_lago))
