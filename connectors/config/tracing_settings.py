"""The environment variables of traces, and the value made of them; `settings.py` reads them.

Only the variables that Meterbridge itself decides by are here. The OpenTelemetry SDK reads the others, such as
`OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_EXPORTER_OTLP_HEADERS`, from the environment (docs/tracing.md).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from connectors.config.types import Lower

Sampler = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]


@dataclass(frozen=True, slots=True)
class TracingConfig:
    """How traces are recorded.

    Fields:
        service_name: `service.name` of the resource.
        sampler, ratio: of the SDK; `ratio` is the share of traces, 0 to 1, for the samplers that have one.
    """

    service_name: str
    sampler: Sampler
    ratio: float


class TracingSettings(BaseModel):
    """A part of `Settings`."""

    tracing_enabled: bool = Field(
        False,
        description="Record OpenTelemetry traces and export them by OTLP over HTTP ([how](tracing.md)). Needs `pip install -c constraints.txt '.[otel]'` in the sources.",
    )
    otel_service_name: str | None = Field(
        None,
        description="`service.name` of the traces; unset = `meterbridge-` and the role, such as `meterbridge-meter`.",
    )
    otel_traces_sampler: Annotated[Sampler, Lower] = Field(
        "parentbased_traceidratio",
        description="Which traces are recorded: one of OpenTelemetry's samplers. This one follows the sender's `traceparent`, and takes the share "
        "`OTEL_TRACES_SAMPLER_ARG` of the requests without one.",
    )
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.01, description="The share of traces that a sampler `...traceidratio` records, 0 to 1."
    )

    def tracing(self, role: str) -> TracingConfig | None:
        """How a process of this role records traces; None = it records none."""
        if not self.tracing_enabled:
            return None
        name = self.otel_service_name or f"meterbridge-{role}"
        return TracingConfig(name, self.otel_traces_sampler, self.otel_traces_sampler_arg)
