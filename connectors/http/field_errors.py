"""Turns the errors of pydantic into sentences for callers of the API, which name fields and never their values."""

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ValidationError

#: A response lists only the first errors of a body, because it must not be larger than the request.
_ERRORS_TOLD: Final = 20
_FIELD_CHARS: Final = 100
#: What follows the name of the field, by pydantic's type of the error; `{}` are filled from the error's context.
_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    **dict.fromkeys(("string_type", "string_unicode"), "must be text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "must be a number"),
    "is_instance_of": "must be a number",  # only Decimal is asked for in this way
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "list_type": "must be a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be an object"),
    "none_required": "must be null",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    **dict.fromkeys(("literal_error", "enum"), "must be {expected}"),
    **dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing", "datetime_object_invalid"),
        "must be a moment in ISO 8601, for example 2026-11-20T10:03:00Z",
    ),
    "timezone_aware": "must have an offset from UTC, for example 2026-11-20T10:03:00Z",
}
#: The meaning of the patterns of all fields.
PATTERNS: Final[Mapping[str, str]] = {
    r"^[^\x00-\x1f\x7f]+$": "must have at least one character, and no control characters",
    r"^[^\x00-\x1f\x7f]*$": "must have no control characters",
    r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$": "must have at least one character, no space before it, and no control characters",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$": "must be 1 to 64 letters, digits, _ . or -, a letter or a digit first",
    r"^\d{4}-\d{2}-\d{2}([T ][\d:.]{5,15}(Z|[+-]\d{2}:?\d{2})?)?$": "must be a day or a moment in ISO 8601, for example "
    "2026-11-20T10:03:00Z",
    "^[A-Z]{3}$": "must be three capital letters, for example USD",
    r"^([^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+)?$": "must be an e-mail address, for example billing@acme.io",
    r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?$": 'must be a plain decimal number as text, for example "0.25"',
    r"^(user|org):[^\x00-\x1f\x7f]{1,255}$": "must be user:ID or org:ID, for example user:ada",
    r"^(https://[^\s/@\x00-\x1f\x7f]+|http://(localhost|127\.0\.0\.1)(:[0-9]{1,5})?)([/?#][^\s\x00-\x1f\x7f]*)?$": "must be an "
    "https address, for example https://example.com/paid",
}
#: How the text of a `ValueError` begins that continues the name of the field.
_PREDICATES: Final = ("is ", "must ")


def field_errors(model: type[BaseModel], invalid: ValidationError) -> list[dict[str, str]]:
    """Return an entry for each wrong field, in the order of the model: `field`, its path with dots, `body` = the whole
    body; and `message`, a sentence that names the field. There are at most 20.
    """
    told: dict[str, list[str]] = {}
    for error in invalid.errors(include_input=False, include_url=False)[:_ERRORS_TOLD]:
        path, known = _place(model, error["loc"])
        name = ".".join(part[:_FIELD_CHARS] for part in path)
        sentence = _sentence(error, known)
        sentences = told.setdefault(name, [])
        if sentence not in sentences:
            sentences.append(sentence)
    return [{"field": name or "body", "message": _named(name, " or ".join(said))} for name, said in told.items()]


def _named(name: str, said: str) -> str:
    """Return the sentence with its subject; the text of a `ValueError` may have one of its own."""
    if said.startswith(_PREDICATES):
        return f"`{name}` {said}" if name else f"the body {said}"
    return f"`{name}`: {said}" if name else said


def _sentence(error: Mapping[str, Any], known: tuple[str, ...]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"is unknown; known are {', '.join(known)}" if known else "is unknown; there are none here"
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"must match the regular expression {context['pattern']}")
    if kind == "value_error":
        return str(context["error"])
    if (sentence := _SENTENCES.get(kind)) is not None:
        return sentence.format(**context).replace(" 1 characters", " 1 character").replace(" 1 entries", " 1 entry")
    message: str = error["msg"]
    return message.replace("Input should", "must", 1)


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """Return the path of a field, and the names that are known beside it.

    pydantic adds parts to the location that are not in the body, for example the type within a union. They are left out.
    """
    path: list[str] = []
    known: tuple[str, ...] = ()
    kind: Any = model
    for part in location:
        kind = _inner(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {
                name: field.annotation
                for field_name, field in kind.model_fields.items()
                for name in _names(field_name, field)
            }
            known = tuple(_names(field_name, field)[0] for field_name, field in kind.model_fields.items())
            kind = fields.get(str(part))
        elif get_origin(kind) in (dict, list):
            kind = get_args(kind)[-1]
        else:
            break
        if part != "[key]":
            path.append(str(part))
    return path, known


def _names(field_name: str, field: Any) -> list[str]:
    """Return the names of a field in a body; the first is the one to use."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [alias if isinstance(alias, str) else field_name]


def _inner(kind: Any) -> Any:
    """Return the type without its annotations and without null."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType) and len(others := _without_null(kind)) == 1:
            kind = others[0]
        else:
            return kind


def _without_null(kind: Any) -> list[Any]:
    return [one for one in get_args(kind) if one is not type(None)]
