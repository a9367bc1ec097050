"""Requests about Lago's health, its version, and the organization of our API key."""

from http import HTTPStatus

import msgspec

from connectors.lago.errors import LagoUnavailable
from connectors.lago.responses import Organization, ServerHealth
from connectors.lago.transport import LagoTransport
from schemas.decoding import UNDECODABLE


class ServerApi(LagoTransport):
    """`/health`, which is at the root and needs no key, and `/organizations`."""

    async def healthy(self) -> bool:
        """Check whether `/health` answers with a status below 500; never raises.

        A proxy that hides the path does not make Lago unhealthy.
        """
        try:
            response = await self._send("healthy", "GET", f"{self.root}/health", keyed=False)
        except LagoUnavailable:
            return False
        return response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR

    async def version(self) -> str:
        """Return the version in `/health`: the tag of a release, or the name of the image's build.

        Raises:
            LagoUnavailable: no response, or one without a version.
        """
        response = await self._send("version", "GET", f"{self.root}/health", keyed=False)
        try:
            return msgspec.json.decode(response.content, type=ServerHealth).version
        except UNDECODABLE as error:
            raise LagoUnavailable("bad_answer", "health: no version") from error

    async def organization(self) -> Organization:
        """Return the organization of the API key. Raises: LagoIntegrationError."""
        answer = await self._get_or_none("organization", "/organizations", "organization", Organization)
        if answer is None:
            raise LagoUnavailable("http_404", "no organization under this address", status=HTTPStatus.NOT_FOUND)
        return answer
