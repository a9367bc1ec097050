"""The OpenAPI 3.1 document of an application. Endpoints describe themselves; other_routes.py describes the other routes.

It is made from the application's router, so it has every route. A route without a description is an error. Source:
https://spec.openapis.org/oas/v3.1.0
"""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from connectors.api.openapi.examples import EXAMPLES, OTHER_BODIES
from connectors.api.openapi.field_texts import describe, models_in, path_text
from connectors.api.openapi.other_routes import DESCRIBED, PROBLEM, SECURITY, problem
from connectors.http.endpoint import Endpoint
from connectors.http.request_limits import PART_PATTERN

_REF: Final = "#/components/schemas/{model}"
_PART = re.compile(r"\{([^}:]+)(?::[^}]*)?\}")
Json = dict[str, Any]
_Names = Mapping[Any, Json]


def served(app: web.Application) -> set[tuple[str, str]]:
    """Method and path of every route, without HEAD routes, and without a slash at the end of a path."""
    routes = set()
    for route in app.router.routes():
        if route.resource is not None and route.method != "HEAD":
            routes.add((route.method, route.resource.canonical.rstrip("/") or "/"))
    return routes


def document(endpoints: Iterable[Endpoint], routes: Iterable[tuple[str, str]], issuer: str = "") -> Json:
    """Return the document.

    Args:
        endpoints: the endpoints of the management API.
        routes: method and path of all routes.
        issuer: `OIDC_ISSUER`; `""` = users have no access.

    Raises:
        KeyError: a route is not an endpoint, and other_routes.py does not describe it; a property or a parameter has no text;
            or a body has no example in examples.json.
    """
    by_route = {(endpoint.method, endpoint.path): endpoint for endpoint in endpoints}
    ordered = sorted(routes, key=lambda route: (route[1], route[0]))
    names, definitions = _schemas([by_route[route] for route in ordered if route in by_route])
    paths: dict[str, Json] = {}
    for method, path in ordered:
        endpoint = by_route.get((method, path))
        description = DESCRIBED[method, path] if endpoint is None else _operation(endpoint, names, definitions, issuer)
        tag = next((word for word in path.split("/") if word not in ("", "api", "v1")), "meterbridge")
        operation = {"operationId": _operation_id(method, path), "tags": [tag], **description}
        paths.setdefault(_PART.sub(r"{\1}", path), {})[method.lower()] = operation
    schemes = {name: scheme for name, scheme in SECURITY.items() if name != "oidc" or issuer}
    if issuer:
        schemes["oidc"] = {
            **schemes["oidc"],
            "openIdConnectUrl": f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Meterbridge",
            "version": version("meterbridge"),
            "summary": "LiteLLM's usage becomes Lago's invoices, each call billed once.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {**definitions, "Problem": PROBLEM}, "securitySchemes": schemes},
    }


def _schemas(endpoints: Iterable[Endpoint]) -> tuple[_Names, dict[str, Json]]:
    """Return a reference to the schema of each model, and all schemas by name; two models of the same name get longer
    names.
    """
    models: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {}
    for endpoint in endpoints:
        for taken in (endpoint.body, endpoint.query):
            if taken is not None:
                models[taken, "validation"] = None
        for answer in endpoint.answers.values():
            if answer is not None:
                models[answer, "serialization"] = None
    names, schemas = models_json_schema(list(models), ref_template=_REF)
    definitions = schemas.get("$defs", {})
    describe(definitions, models_in(model for model, _mode in models))
    return names, definitions


def _operation(endpoint: Endpoint, names: _Names, definitions: dict[str, Json], issuer: str) -> Json:
    operation: Json = {"summary": endpoint.summary, "responses": _answers(endpoint, names)}
    if parameters := [*_parts(endpoint), *_query(endpoint, names, definitions)]:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = {"schema": names[endpoint.body, "validation"], "example": EXAMPLES[endpoint.body.__name__]}
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    elif (body := OTHER_BODIES.get((endpoint.method, endpoint.path))) is not None:
        operation["requestBody"] = body
    if endpoint.scope:
        schemes = ("bearer", "oidc") if issuer else ("bearer",)
        operation["security"] = [{scheme: [endpoint.scope]} for scheme in schemes]
        if endpoint.own_without_scope and issuer:
            operation["security"].append({"oidc": []})
        operation["description"] = _needs(endpoint)
    else:
        operation["security"] = []
    return operation


def _needs(endpoint: Endpoint) -> str:
    sentences = [f"Needs the scope `{endpoint.scope}`."]
    if endpoint.own_without_scope:
        sentences = [
            f"A signed-in user needs no scope for the own account; else it needs the scope `{endpoint.scope}`."
        ]
    sentences += [f"Needs the scope `{scope}` as well for {what}." for scope, what in endpoint.also.items()]
    if endpoint.hands_out:
        sentences.append(f"The audit log gets a line with the caller who gets {endpoint.hands_out}.")
    return " ".join(sentences)


def _parts(endpoint: Endpoint) -> list[Json]:
    parameters = []
    for name in _PART.findall(endpoint.path):
        schema: Json = {"type": "string", "minLength": 1}
        if name not in endpoint.any_text:
            schema |= {"maxLength": 255, "pattern": f"^{PART_PATTERN}$"}
        described = {"name": name, "in": "path", "required": True, "description": path_text(endpoint.path, name)}
        parameters.append({**described, "schema": schema})
    return parameters


def _query(endpoint: Endpoint, names: _Names, definitions: dict[str, Json]) -> list[Json]:
    if endpoint.query is None:
        return []
    schema = definitions[names[endpoint.query, "validation"]["$ref"].rpartition("/")[2]]
    required = schema.get("required", ())
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": property_schema["description"],
            "schema": {key: value for key, value in property_schema.items() if key not in ("title", "description")},
        }
        for name, property_schema in schema.get("properties", {}).items()
    ]


def _answers(endpoint: Endpoint, names: _Names) -> Json:
    answers: Json = {}
    for status, model in endpoint.answers.items():
        answers[str(status)] = {"description": web.Response(status=status).reason}
        if model is not None:
            content = {"schema": names[model, "serialization"]}
            answers[str(status)]["content"] = {"application/json": content}
    if endpoint.also_csv:
        answers["200"]["content"]["text/csv"] = {"schema": {"type": "string"}}
    refusals = {"400": "The request is malformed."} | ({"413": "The body is too large."} if endpoint.body else {})
    if endpoint.scope:
        refusals |= {
            "401": "No credential, or an unknown one.",
            "403": "The credential lacks the scope, or is for other orgs.",
            "429": "Too many requests; `Retry-After` says when to try again.",
        }
    refusals |= {str(status): _one_of(reasons) for status, reasons in _reasons(endpoint).items()}
    refusals["503"] = "It cannot be done now; `Retry-After` says when to try again."
    refusals["default"] = "Any other error; `reason` says which."
    for refused, sentence in refusals.items():
        answers.setdefault(refused, problem(sentence))
    return answers


def _reasons(endpoint: Endpoint) -> dict[int, tuple[str, ...]]:
    """Return the reasons that docs/errors-api.md explains, by status; a body or a query may also have wrong fields."""
    reasons = dict(endpoint.refuses)
    if endpoint.body is not None or endpoint.query is not None:
        reasons[422] = ("invalid_fields", *reasons.get(422, ()))
    return dict(sorted(reasons.items()))


def _one_of(reasons: tuple[str, ...]) -> str:
    named = " or ".join(f"`{reason}`" for reason in reasons)
    return f"The `reason` is {named}: docs/errors-api.md has the cause and the next step."


def _operation_id(method: str, path: str) -> str:
    words = re.findall(r"\w+", _PART.sub(r"by_\1", path))
    return "_".join([method.lower(), *words])
