"""Answers a post to a path that nearly is one of a webhook of usage: the words of the paths are singular in one, and plural in another."""

from aiohttp import web
from aiohttp.typedefs import Handler

from connectors.config.misspelt_names import meant_by
from connectors.http.problem import Problem
from connectors.ingest.routes import ROUTES

_PATHS = tuple(route.path for route in ROUTES)
_LIKENESS = 0.8


@web.middleware
async def naming_paths(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware that names the webhooks of usage in the 404 of a post to a path like theirs. The path itself is not repeated."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        if request.method != "POST" or not meant_by(request.path, _PATHS, _LIKENESS):
            raise
    detail = "no such path; usage is posted to /webhook/litellm/usage or /webhooks/litellm"
    raise Problem(404, "not_found", detail)
