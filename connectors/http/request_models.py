"""Reads the body and the query of a request to the management API as their models. Errors name places, never values."""

import re
from decimal import Decimal, DecimalException
from typing import Any, Final

import msgspec
from multidict import MultiMapping
from pydantic import BaseModel, ValidationError

from connectors.http.field_errors import field_errors
from connectors.http.problem import Problem
from schemas.decoding import UNDECODABLE

_INVALID: Final = "invalid_fields"
_NAME_CHARS: Final = 100
#: A place in the messages of the two libraries.
_PLACE: Final = re.compile(r"line (\d+) column (\d+)|byte (\d+)")


def parsed(model: type[BaseModel], body: bytes, what: str = "the body") -> BaseModel:
    """Return the body as its model. The body may be absent if the model requires no field.

    A model with `exact_numbers = True` gets each number with a fraction or an exponent as a Decimal with all its
    digits; other models get a binary float, which keeps 15 to 17.

    Args:
        what: how an error calls the body.

    Raises:
        Problem: 400 if the body is not JSON, with the place of the error; 422 with the names of the wrong fields, never with their values.
    """
    nothing = b"" if any(field.is_required() for field in model.model_fields.values()) else b"{}"
    try:
        if getattr(model, "exact_numbers", False):
            return model.model_validate(_with_exact_numbers(body or nothing, what))
        return model.model_validate_json(body or nothing)
    except ValidationError as invalid:
        raise _invalid(model, invalid, body, what) from None


def _with_exact_numbers(body: bytes, what: str) -> Any:
    try:
        return _exact_json.decode(body)
    except UNDECODABLE as error:
        raise _not_json(body, str(error), what) from None


def _exact(text: str) -> Decimal:
    """Return the number; a number whose exponent Decimal does not have is infinite or 0, as in a float."""
    try:
        return Decimal(text)
    except DecimalException:
        return Decimal(repr(float(text)))


_exact_json = msgspec.json.Decoder(Any, float_hook=_exact)


def _not_json(body: bytes, said: str, what: str) -> Problem:
    """Return 400 with the place of the first error, never with what is there.

    Args:
        said: the message of the library: pydantic counts lines and columns from 1, msgspec bytes from 0.
    """
    if not body.strip():
        return Problem(400, "not_json", f"{what} is empty: send JSON")
    if (place := _PLACE.search(said)) is None or said.startswith("EOF"):
        return Problem(400, "not_json", f"{what} is not JSON: it ends too early. Was it cut off?")
    line, column = place[1] or "1", place[2]
    if place[3] is not None:
        before = body[: int(place[3])]
        line, column = str(before.count(b"\n") + 1), str(len(before) - before.rfind(b"\n"))
    at = f"line {line}, column {column}" if b"\n" in body else f"column {column}"
    return Problem(400, "not_json", f"{what} is not JSON: the first error is at {at}")


class NothingAsked(BaseModel):
    """The query of an endpoint without query parameters."""


def query_of(model: type[BaseModel], given: MultiMapping[str]) -> BaseModel:
    """Return the query as its model. Raises: Problem 422: a parameter is unknown, wrong, or there more than once: to ignore
    it would answer another question.
    """
    if twice := sorted({name for name in given if len(given.getall(name)) > 1}):
        message = f"`{twice[0][:_NAME_CHARS]}` is given more than once"
        raise Problem(422, _INVALID, message, errors=[{"field": twice[0][:_NAME_CHARS], "message": message}])
    try:
        return model.model_validate(dict(given), extra="forbid")
    except ValidationError as invalid:
        raise _invalid(model, invalid) from None


def _invalid(model: type[BaseModel], invalid: ValidationError, body: bytes = b"", what: str = "") -> Problem:
    first = invalid.errors(include_input=False, include_url=False)[0]
    if first["type"] == "json_invalid":
        return _not_json(body, str(first["ctx"]["error"]), what)
    errors = field_errors(model, invalid)
    return Problem(422, _INVALID, "; ".join(error["message"] for error in errors), errors=errors)
