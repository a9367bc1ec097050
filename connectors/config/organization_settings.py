"""The environment variables of further Lago organisations; `settings.py` reads them (docs/lago-organizations.md)."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from connectors.config.complaints import complaint
from connectors.config.types import HttpUrl, Listed, Secrets
from schemas.organizations import DEFAULT_LABEL, NAME_PATTERN

#: Each has a consumer group, connections and a label of metrics.
_MOST = 50


class LagoOrganization(BaseModel):
    """A further Lago organisation.

    Fields:
        id: the name in mappings (`lago_organization_id`) and in the keys of its orgs.
        url: Lago's API, without `/api/v1`.
        key, key_file: its API key, or the file that has it. The file is read again when it changes.
        webhook_secret: as `LAGO_WEBHOOK_SECRET`.
        clickhouse_dedup: as `LAGO_CLICKHOUSE_DEDUP`.
        requests_per_second: the most posts of one worker process; None = as fast as Lago allows.
        concurrency: requests at the same time of one worker process; None = `WORKER_CONCURRENCY`.
        closed: it is not asked any more. Usage of its orgs is held, and its events become dead letters. The address and
            the key are not read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    url: HttpUrl | None = None
    key: SecretStr | None = None
    key_file: Path | None = None
    webhook_secret: Secrets = ()
    clickhouse_dedup: bool = False
    requests_per_second: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=64)] | None = None
    closed: bool = False

    @model_validator(mode="after")
    def _can_be_asked(self) -> "LagoOrganization":
        if self.id == DEFAULT_LABEL:
            raise ValueError(f"{DEFAULT_LABEL} is the organisation of LAGO_API_URL")
        if self.closed:
            return self
        if self.url is None:
            raise ValueError("needs url")
        if (self.key is None) is (self.key_file is None):
            raise ValueError("needs key or key_file, and not both")
        if self.key is not None and not len(self.key):
            raise ValueError("has an empty key")
        return self


_EXAMPLE = '[{"id": "eu", "url": "https://lago.example", "key_file": "/run/secrets/lago-eu"}]'
_listed = TypeAdapter(list[LagoOrganization])


def _organizations(value: Any) -> Any:
    """The list in JSON or YAML. No message contains a value: a key may be in the wrong place."""
    if not isinstance(value, str):
        return value
    # Few deployments have several organisations, and every command reads the settings.
    import yaml

    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        place = "" if mark is None else f", it cannot be read at line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"should be a list in JSON or YAML{place}; for example {_EXAMPLE}") from None
    members = read.get("organizations") if isinstance(read, dict) and set(read) == {"organizations"} else read
    try:
        organizations = _listed.validate_python(members)
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False, include_context=False)[0]
        number, *path = first["loc"] or ("",)
        place = f"entry {number + 1} {'.'.join(map(str, path))}".strip() if isinstance(number, int) else "the whole"
        raise ValueError(
            f"should be a list of organisations: {place}: {complaint(first['type'], first['msg'])}; for example {_EXAMPLE}"
        ) from None
    if len({one.id for one in organizations}) < len(organizations):
        raise ValueError("should have a different id for each organisation")
    if len(organizations) > _MOST:
        raise ValueError(f"should have at most {_MOST} organisations")
    return tuple(organizations)


class OrganizationSettings(BaseModel):
    """A part of `Settings`."""

    lago_organizations: Annotated[tuple[LagoOrganization, ...], BeforeValidator(_organizations)] = Field(
        (),
        description="Further organisations of Lago ([how](lago-organizations.md)), a list in JSON or YAML; it holds keys, so mount it as a file "
        "and set `LAGO_ORGANIZATIONS_FILE`. Unset = the one of `LAGO_API_URL` is the only one.",
    )
    lago_organization_names: Annotated[tuple[str, ...], Field(min_length=1), Listed] = Field(
        ("default", "main"),
        description="Names by which mappings may call the organisation of `LAGO_API_URL`, separated by commas. It counts only where there are "
        "further ones: another name is then refused, `unknown_organization`.",
    )

    @property
    def open_organizations(self) -> tuple[LagoOrganization, ...]:
        """The further organisations that are billed into."""
        return tuple(one for one in self.lago_organizations if not one.closed)

    @property
    def closed_organizations(self) -> tuple[str, ...]:
        """The names of those whose events are given up."""
        return tuple(one.id for one in self.lago_organizations if one.closed)
