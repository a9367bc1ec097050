"""The environment variables of logs; `settings.py` reads them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from connectors.config.types import Lower, Upper


class LoggingSettings(BaseModel):
    """A part of `Settings`."""

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Upper] = Field(
        "INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`."
    )
    log_format: Annotated[Literal["json", "console"], Lower] = Field(
        "json", description="`json`: one object a line; `console`: for people."
    )
