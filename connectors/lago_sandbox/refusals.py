"""Answers other than 200: raised where a request breaks a rule, with Lago's error body.

Source of the bodies: `app/controllers/concerns/api_errors.rb` and `api_responses.rb` of lago-api.
"""


class SandboxRefusal(Exception):
    """Ends the request with `status` and the JSON object `body`."""

    def __init__(self, status: int, body: dict[str, object]) -> None:
        super().__init__(f"{status} {body.get('code', body.get('error'))}")
        self.status = status
        self.body = body


def _refusal(status: int, error: str, **more: object) -> SandboxRefusal:
    return SandboxRefusal(status, {"status": status, "error": error, **more})


def malformed() -> SandboxRefusal:
    """Return 400: the body is not JSON."""
    return _refusal(400, "Bad Request")


def missing_root(name: str) -> SandboxRefusal:
    """Return 400: the object under the root key `name` is absent or empty."""
    return _refusal(400, f"BadRequest: param is missing or the value is empty or invalid: {name}")


def unauthorized() -> SandboxRefusal:
    """Return 401: no API key, or an unknown one."""
    return _refusal(401, "Unauthorized")


def forbidden() -> SandboxRefusal:
    """Return 403: the feature needs the premium licence."""
    return _refusal(403, "Forbidden", code="feature_unavailable")


def not_found(resource: str) -> SandboxRefusal:
    """Return 404 `<resource>_not_found`; `resource` itself for a path that does not exist."""
    return _refusal(404, "Not Found", code=f"{resource}_not_found")


def not_allowed(code: str) -> SandboxRefusal:
    """Return 405: the state of the data forbids the request; it has nothing to do with the HTTP verb."""
    return _refusal(405, "Method Not Allowed", code=code)


def invalid(details: object) -> SandboxRefusal:
    """Return 422: `details` maps fields, or indexes of a batch as text, to lists of codes."""
    return _refusal(422, "Unprocessable Entity", code="validation_errors", error_details=details)


def invalid_field(field: str, code: str) -> SandboxRefusal:
    """Return 422 with one code on one field."""
    return invalid({field: [code]})


def crashed() -> SandboxRefusal:
    """Return 500: an exception that Lago does not rescue; the body tells clients nothing."""
    return _refusal(500, "Internal Server Error")
