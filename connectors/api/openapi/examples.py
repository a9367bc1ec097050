"""An example of each body that the management API takes, in one story: the org `org_acme` pays for the LiteLLM customer `acme`."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import msgspec

Json = dict[str, Any]

#: By the name of the model of the body.
EXAMPLES: Final = msgspec.json.decode(files(__package__).joinpath("examples.json").read_bytes(), type=dict[str, Json])

_CSV = "litellm_customer_id,lago_customer_id,lago_organization_id\nacme,org_acme,main\nglobex,org_globex,main\n"
#: Bodies of endpoints that have no model for the whole body, by method and path.
OTHER_BODIES: Final[Mapping[tuple[str, str], Json]] = {
    ("POST", "/customers/mappings/import"): {
        "description": "At most 10 000 rows and 8 MiB: an array, an object per line, or CSV with a header.",
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "array", "items": {"$ref": "#/components/schemas/MappingBody"}},
                "example": [EXAMPLES["MappingBody"]],
            },
            "text/csv": {"schema": {"type": "string"}, "example": _CSV},
        },
    },
}
