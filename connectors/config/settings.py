"""All environment variables, read once at the start. No other module reads the environment.

A variable is a field of the class of its subject, in `SUBJECT_settings.py` beside this file; this module only composes them.
`load_settings()` returns a frozen `Settings`, or raises one ConfigurationError that names every malformed variable. An empty
variable counts as not set. No message contains a value, because a malformed value may be a secret in the wrong variable.
docs/configuration.md is made from these classes (connectors/config/configuration_page.py).
"""

import os
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connectors.config.api_settings import ApiSettings
from connectors.config.canary_settings import CanarySettings
from connectors.config.complaints import complaint
from connectors.config.credit_settings import CreditSettings
from connectors.config.deployment_settings import DeploymentSettings
from connectors.config.ingress_settings import IngressSettings
from connectors.config.kafka_settings import KafkaSettings
from connectors.config.lago_settings import LagoSettings
from connectors.config.listening_settings import ListeningSettings
from connectors.config.litellm_settings import LiteLLMSettings
from connectors.config.logging_settings import LoggingSettings
from connectors.config.mapping_settings import MappingSettings
from connectors.config.metering_settings import MeteringSettings
from connectors.config.misspelt_names import unknown_names
from connectors.config.old_names import check_renamed
from connectors.config.organization_settings import OrganizationSettings
from connectors.config.outgoing_webhook_settings import OutgoingWebhookSettings
from connectors.config.postgres_settings import PostgresSettings
from connectors.config.provider_key_settings import ProviderKeySettings
from connectors.config.secret_files import with_files
from connectors.config.tracing_settings import TracingSettings
from connectors.config.worker_settings import WorkerSettings
from schemas.errors import ConfigurationError
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy


class Settings(
    KafkaSettings,
    DeploymentSettings,
    LagoSettings,
    OrganizationSettings,
    MappingSettings,
    LiteLLMSettings,
    ListeningSettings,
    IngressSettings,
    ApiSettings,
    MeteringSettings,
    WorkerSettings,
    PostgresSettings,
    CreditSettings,
    ProviderKeySettings,
    OutgoingWebhookSettings,
    CanarySettings,
    LoggingSettings,
    TracingSettings,
):
    """The operator's settings. A field's variable is its name in capitals; durations are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    #: Variables that look like a setting and are none; the process warns about them.
    unknown: tuple[str, ...] = Field((), exclude=True)

    def meter_policy(self) -> MeterPolicy:
        """The settings that decide what is billed, in the form of the meter."""
        return MeterPolicy(
            deployment=self.deployment_name,
            window_us=self.window_seconds * SECOND_US,
            grace_us=round(self.grace_seconds * SECOND_US),
            dedupe_retention_us=self.dedupe_retention_hours * HOUR_US,
            group_by=self.window_group_by,
            cost_decimals=self.cost_decimals,
            bill_cache_hits=self.cache_hit_policy == "bill",
            bill_byok=self.byok_policy == "bill",
            bill_own_subscriptions=self.client_oauth_policy == "bill",
            bill_silent_experiments=self.silent_experiment_policy == "bill",
            max_usd_per_call=self.max_usd_per_call,
            max_usd_per_token=self.max_usd_per_token,
            out_of_period_policy=self.out_of_period_policy,
            event_code=self.lago_event_code,
            organizations=tuple(one.id for one in self.open_organizations),
        )


#: The parts of `Settings`, each a section of docs/configuration.md with its heading.
PARTS: Final[dict[str, type[BaseModel]]] = {
    "Kafka": KafkaSettings,
    "The deployment's names": DeploymentSettings,
    "Lago": LagoSettings,
    "Several Lago organisations": OrganizationSettings,
    "Orgs and mappings": MappingSettings,
    "LiteLLM and Redis": LiteLLMSettings,
    "Ports": ListeningSettings,
    "The ingress": IngressSettings,
    "The management API": ApiSettings,
    "Metering": MeteringSettings,
    "Workers": WorkerSettings,
    "Postgres": PostgresSettings,
    "Credits and Stripe": CreditSettings,
    "Provider keys": ProviderKeySettings,
    "Outgoing webhooks": OutgoingWebhookSettings,
    "The canary": CanarySettings,
    "Logging": LoggingSettings,
    "Traces": TracingSettings,
}
#: The field of each variable, in the order of the page.
VARIABLES: Final = {name.upper(): name for part in PARTS.values() for name in part.model_fields}


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ` (default: this process's environment) and from the files that it names.

    Raises:
        ConfigurationError: `reason` is the name of the malformed variable; several are joined by commas. Or it is the old name
            of a setting that was renamed.
    """
    environ = os.environ if environ is None else environ
    check_renamed(environ)
    environ = with_files(environ, VARIABLES)
    given = {name: environ[variable].strip() for variable, name in VARIABLES.items() if environ.get(variable)}
    unknown = unknown_names(environ, VARIABLES)
    try:
        return Settings.model_validate({**{name: text for name, text in given.items() if text}, "unknown": unknown})
    except ValidationError as invalid:
        complaints: dict[str, str] = {}
        for error in invalid.errors(include_input=False, include_url=False, include_context=False):
            name = str(error["loc"][0])
            default = Settings.model_fields[name].default
            complaints.setdefault(name.upper(), complaint(error["type"], error["msg"], default))
        sentences = "; ".join(f"{variable} {message}" for variable, message in complaints.items())
        raise ConfigurationError(", ".join(complaints), sentences) from None


def own_settings(beginnings: tuple[str, ...]) -> Settings:
    """`load_settings` with only the variables that begin so: in another program's process, other variables may be that
    program's."""
    return load_settings({name: value for name, value in os.environ.items() if name.startswith(beginnings)})
