"""The environment variables of `meterbridge worker`: its processes, and how it delivers; `settings.py` reads them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from connectors.config.types import Lower, PodName


class WorkerSettings(BaseModel):
    """A part of `Settings`."""

    pod_name: PodName | None = Field(
        None,
        description="A worker's name that stays the same after a restart, e.g. a StatefulSet's pod name by the downward API. A worker "
        "that is back within 15 s keeps its partitions, which wait so long, and no other worker is disturbed. Two running "
        "workers must not share it. Unset = partitions move at once when a worker stops.",
    )
    worker_processes: Annotated[Literal["one", "per_role"], Lower] = Field(
        "per_role",
        description="How `meterbridge worker` runs several roles: `per_role`, each in a process of its own; `one`, all in one "
        "process, which takes less memory and uses one CPU core ([ADR 0057](adr/0057-the-roles-of-a-worker-can-share-a-process.md)).",
    )
    worker_concurrency: int = Field(
        4, ge=1, le=64, description="Requests to Lago at the same time, for each role of each worker that sends events."
    )
    held_in_memory: int = Field(
        10_000,
        ge=100,
        description="Held windows of a partition that stay in memory, 1.1 kB each; more go to disk, and the metric "
        "`meterbridge_held_over_bound` is 1.",
    )
    max_retries: int = Field(
        3,
        ge=0,
        le=100,
        description="Attempts in the retry topic, each with up to three requests, before an event becomes a dead letter.",
    )
    retry_delay: float = Field(
        60,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds before the first retry; each further one waits twice as long, at most an hour.",
    )
    batch_size: int = Field(
        100, ge=1, le=100, description="Events in one request to Lago, which refuses more than 100."
    )
