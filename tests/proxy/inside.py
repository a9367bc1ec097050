"""Runs inside LiteLLM's proxy, in its environment: what needs LiteLLM's database there, without Prisma, whose engine is
not to be had everywhere.

Which call gets a spend row, under which id, at which cost and who pays is decided by LiteLLM's own callback and writer.
The last step alone is ours: the row goes to the trial, which keeps LiteLLM's table (spend.py), instead of to Prisma.
With `TRIAL_FREE_READS` reads of a background response are free, as LiteLLM makes them beside a database. Its own poller
reports a finished response; the list of such responses is ours.
"""

import json
import os
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
from litellm.proxy import proxy_server
from litellm.proxy.db import db_spend_update_writer
from litellm.proxy.hooks.proxy_track_cost_callback import _ProxyDBLogger
from litellm.proxy.hooks.responses_id_security import decrypted_response_id
from litellm_enterprise.proxy.common_utils.check_responses_cost import CheckResponsesCost
from litellm_enterprise.proxy.hooks import managed_files

from tests.support.eventually import PATIENCE

#: Columns of LiteLLM's own accounting, which are no part of the row.
_ACCOUNTING = "accounting_"
_FREE_READS = bool(os.environ.get("TRIAL_FREE_READS"))


class PostingWriter(db_spend_update_writer.DBSpendUpdateWriter):
    """LiteLLM's writer, without the INSERT."""

    async def _record_spend_log(self, payload: Any, *args: Any, **kwargs: Any) -> bool:
        """False: another poll wrote the row with this job's cost before. A poll of a job without a cost has no row."""
        of_a_job = db_spend_update_writer._is_settle_once_cost_row(payload)
        if of_a_job and payload["spend"] <= 0:
            return True
        row = {name: value for name, value in payload.items() if not name.startswith(_ACCOUNTING)}
        body = json.dumps(row, default=str)
        async with httpx.AsyncClient(trust_env=False, timeout=30 * PATIENCE) as http:
            answer = await http.post(os.environ["TRIAL_SPEND_URL"], content=body)
        answer.raise_for_status()
        return answer.json()["new"] or not of_a_job


class Logger(_ProxyDBLogger):
    """LiteLLM's callback with a database, and the one step of its `managed_files` hook that changes a price."""

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
        """Mark the read of a background response like LiteLLM does."""
        read = call_type in managed_files._MANAGED_RESPONSE_READ_CALL_TYPES
        if _FREE_READS and read and managed_files._addresses_a_proxy_issued_response(data):
            return managed_files._with_managed_background_marker(data)
        return data


class Table:
    """The part of a Prisma table that LiteLLM's poller uses."""

    def __init__(self) -> None:
        self.rows: list[SimpleNamespace] = []

    async def find_many(self, where: Any, **_: Any) -> list[SimpleNamespace]:
        return [row for row in self.rows if row.status in where["status"]["in"]]

    async def update_many(self, where: Any, data: Any) -> int:
        wanted = where["status"]
        states = wanted["in"] if isinstance(wanted, dict) else [wanted]
        found = [row for row in self.rows if row.id == where["id"] and row.status in states]
        for row in found:
            vars(row).update(data)
        return len(found)

    async def find_first(self, **_: Any) -> None:
        return None

    find_unique = find_first


_objects, _no_one = Table(), Table()
_tables = {f"litellm_{name}table": _no_one for name in ("team", "user")} | {"litellm_verificationtoken": _no_one}
_prisma = SimpleNamespace(db=SimpleNamespace(litellm_managedobjecttable=_objects, **_tables))


@proxy_server.app.post("/trial/poller")
async def poll(made: dict[str, str]) -> dict[str, int]:
    """Let LiteLLM's own poller check the background response `id` once, created by `user` with `model`."""
    now = datetime.now(UTC)
    known = {"status": "queued", "file_object": {"model": made["model"]}, "created_by": made["user"]}
    ids = {"id": made["id"], "unified_object_id": made["id"], "model_object_id": decrypted_response_id(made["id"])}
    nobody = dict.fromkeys(("team_id", "org_id", "api_key", "request_tags", "end_user_id"))
    if not _objects.rows:
        _objects.rows.append(SimpleNamespace(**ids, **known, **nobody, created_at=now, updated_at=now))
    poller = CheckResponsesCost(proxy_server.proxy_logging_obj, _prisma, proxy_server.llm_router)
    await poller.check_responses_cost()
    return {"waiting": sum(row.status == "queued" for row in _objects.rows)}


proxy_server.proxy_logging_obj.db_spend_update_writer = PostingWriter()
handler = Logger()
