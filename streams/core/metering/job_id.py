"""Converts all forms of a job's id that LiteLLM uses to one spelling.

LiteLLM writes the id of one batch, video or response in several ways: as the provider gave it; packed together with the
deployment in base64 (1.81 on); and in its database with a suffix that marks the row with the cost (`_batch_cost`; since
1.110 `_background_cost` and `_video_cost`). Source: litellm/types/videos/utils.py, litellm/responses/utils.py,
litellm/proxy/spend_tracking/spend_tracking_utils.py.
"""

from base64 import b64decode, urlsafe_b64decode
from binascii import Error as NotBase64
from re import compile as re_compile

#: Suffixes of `request_id` in LiteLLM's database.
SUFFIXES = ("_batch_cost", "_background_cost", "_video_cost")
#: A row with this suffix holds the cost of a poll, and its id names the poll, not the job.
POLL_COST_SUFFIX = "_guardrail_cost"
#: Two deployments can return the same shorter id. Such ids stay packed with their deployment.
_UNIQUE_LENGTH = 16
_PACKED = ("resp_", "video_", "")
_PACKED_LENGTH = 32
#: Ids of providers are shorter than this, encrypted ids are longer.
_SEALED_LENGTH = 120
_INSIDE = re_compile(r"(?:response_id|video_id|llm_batch_id|generic_response_id):([^;]+)")


def without_suffix(request_id: str) -> str:
    """Remove the suffix of a row with a cost from a `request_id` of LiteLLM's database. The callbacks report it without
    the suffix.
    """
    for suffix in SUFFIXES:
        if request_id.endswith(suffix):
            return request_id[: -len(suffix)]
    return request_id


def job_id_of(request_id: str) -> str:
    """Return the provider's id of the job if it is long enough to be unique, otherwise LiteLLM's id.

    The result is equal for every poll, for the creation and for the rows of LiteLLM's database. `""` stays `""`.
    """
    job_id = without_suffix(request_id)
    if len(job_id) < _PACKED_LENGTH:
        return job_id
    match = _INSIDE.search(_unpacked(job_id))
    if match is None or len(match[1]) < _UNIQUE_LENGTH:
        return job_id.rstrip("=")
    return match[1]


def is_sealed(request_id: str) -> bool:
    """Return whether LiteLLM's proxy has encrypted the id. Then each poll has another id, and no poll names the job."""
    job_id = without_suffix(request_id)
    return len(job_id) > _SEALED_LENGTH and job_id.startswith("resp_") and not _unpacked(job_id)


def _unpacked(job_id: str) -> str:
    """Return the content that LiteLLM packed into the id; `""` for the provider's own id."""
    text = next(job_id[len(prefix) :] for prefix in _PACKED if job_id.startswith(prefix))
    padded = text + "=" * (-len(text) % 4)
    try:
        decode = urlsafe_b64decode if "-" in text or "_" in text else b64decode
        unpacked = decode(padded).decode()
    except (NotBase64, ValueError):
        return ""
    return unpacked if unpacked.startswith("litellm") else ""
