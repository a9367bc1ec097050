"""The descriptions of properties and parameters in the OpenAPI document: from the `Fields:` section of the model's docstring, else,
for a name that means the same in all models, from field_texts.toml.
"""

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from inspect import cleandoc
from typing import Any, Final, get_args

import msgspec
from pydantic import BaseModel

Json = dict[str, Any]
_ENTRY: Final = re.compile(r"^ {4}([a-z]\w*(?:, [a-z]\w*)*): (.+)$")
#: What pydantic adds to the name of a model that is both a body and an answer, and has two schemas.
_READ_OR_WRITTEN: Final = re.compile("-(Input|Output)$")
#: Values of JSON, which are written as JSON has them at the beginning of a text, too.
_LITERALS: Final = ("true", "false", "null")
_FIELDS: Final = "\nFields:\n"

_TEXTS: Final = msgspec.toml.decode(
    files(__package__).joinpath("field_texts.toml").read_bytes(), type=dict[str, dict[str, str]]
)
SHARED: Final = _TEXTS["fields"]
PATHS: Final = _TEXTS["paths"]


def path_text(path: str, name: str) -> str:
    """The description of a parameter of a path. Raises: KeyError: `PATHS` has none."""
    for key, text in PATHS.items():
        beginning, _, of = key.rpartition(" ")
        if of == name and path.startswith(beginning):
            return text
    raise KeyError(f"PATHS has no text for {name} of {path}")


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """The texts of a model's docstring and of those of its bases, by field."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        found |= _entries(cleandoc(part.__dict__.get("__doc__") or ""))
    return found


def describe(schemas: Mapping[str, Json], models: Mapping[str, type[BaseModel]]) -> None:
    """Write the descriptions into the schemas.

    Args:
        schemas: the schemas by name; changed in place.
        models: the model of each of them.

    Raises:
        KeyError: neither the docstring nor `SHARED` has a text for a property.
    """
    for name, schema in schemas.items():
        texts = field_texts(models[_READ_OR_WRITTEN.sub("", name)])
        if "description" in schema:
            schema["description"] = schema["description"].partition(_FIELDS)[0].strip()
        for field, of_field in schema.get("properties", {}).items():
            text = of_field.get("description") or texts.get(field) or SHARED.get(field)
            if text is None:
                raise KeyError(f"{name}.{field} has no text: write it into the docstring of {name}, below Fields:")
            of_field["description"] = text if text.startswith(_LITERALS) else text[0].upper() + text[1:]


def models_in(models: Iterable[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """These models and those of their fields, by name."""
    found: dict[str, type[BaseModel]] = {}
    waiting: list[Any] = list(models)
    while waiting:
        kind = waiting.pop()
        waiting += get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ not in found:
            found[kind.__name__] = kind
            waiting += [field.annotation for field in kind.model_fields.values()]
    return found


def _entries(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition(_FIELDS)[2].splitlines():
        if match := _ENTRY.match(line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif not line.startswith("        "):
            break
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
