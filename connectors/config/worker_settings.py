"""The environment variables of `meterbridge worker` itself; `settings.py` reads them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from connectors.config.types import Lower


class WorkerSettings(BaseModel):
    """A part of `Settings`."""

    worker_processes: Annotated[Literal["one", "per_role"], Lower] = Field(
        "per_role",
        description="How `meterbridge worker` runs several roles: `per_role`, each in a process of its own; `one`, all in one "
        "process, which takes less memory and uses one CPU core ([ADR 0057](adr/0057-the-roles-of-a-worker-can-share-a-process.md)).",
    )
    worker_concurrency: int = Field(
        4, ge=1, le=64, description="Requests to Lago at the same time, for each role of each worker that sends events."
    )
