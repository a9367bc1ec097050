"""`meterbridge doctor`: find settings that lose or double money, and print a correct configuration of LiteLLM."""

from pathlib import Path

import typer

from connectors.cli.running import one_sentence, settings_of_command
from connectors.doctor.run import run_doctor


def doctor(config: Path | None, url: str | None, *, principal: str, as_json: bool, with_lago: bool) -> None:
    """Run `meterbridge doctor`."""
    with one_sentence():
        settings = settings_of_command()
        if config is None and url is None:
            url = settings.litellm_api_url
        code = run_doctor(settings, config, url, principal=principal, as_json=as_json, with_lago=with_lago)
        raise typer.Exit(code)
