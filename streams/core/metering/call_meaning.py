"""Finds the kind and the job of a normalised call, and whether it counts other units than tokens."""

from decimal import Decimal

from schemas.normalised_call import Usage, token_counts
from schemas.wire import Call, CallMetadata, Count, TokenDetails, UsageObject
from streams.core.metering.call_kinds import INFERENCE, JOBS, KINDS, READABLE, kind_of, plain_name
from streams.core.metering.flags import is_yes
from streams.core.metering.identity import identity_of
from streams.core.metering.job_id import POLL_COST_SUFFIX, is_sealed, job_id_of
from streams.core.metering.token_counts import OddCount, count_of, picoseconds

#: Call types that need no further check. Nearly all traffic has one of them.
PLAIN = frozenset(name for name, kind in KINDS.items() if kind == INFERENCE) - READABLE
#: Note of a poll that is matched to its job only by its size.
SEALED = "sealed_id"
#: The longest plausible sound or video, seconds. A larger value is a wrong count.
_MOST_SECONDS = 10**9
_NO_DETAILS = TokenDetails()


def tell_kind(usage: Usage, call: Call) -> None:
    """Set the kind and the job of a call whose call type is not in `PLAIN`. Set the customer before.

    All reports of a job have one identity, made of the customer's id and the job's id. A failed read, or a read without
    a job id, is a call of its own.
    """
    call_type = plain_name(usage.call_type)
    usage.kind = kind_of(call_type)
    is_job = call_type in JOBS
    if not is_job and call_type not in READABLE:
        return
    request_id = usage.request_id
    if usage.status == "failure" or request_id in ("", usage.call_id) or request_id.endswith(POLL_COST_SUFFIX):
        return
    if is_job and is_sealed(request_id):
        usage.job = _sealed_job(usage, call)
    else:
        usage.job = identity_of("job", usage.customer_id, job_id_of(request_id))
    if is_job:
        usage.identity = usage.job


def _sealed_job(usage: Usage, call: Call) -> bytes:
    """Make the identity of a job whose id is different in each poll.

    If the answer itself was posted, its id is used. Otherwise polls of one customer with the same deployment, tokens
    and cost count as polls of one job. Then a background response is billed once, but two responses of exactly the same
    size may be billed as one. Such repeats are counted (`ASSUMED_REPEAT`); docs/litellm.md names the settings that
    avoid the guess.
    """
    if call.answer_id:
        return identity_of("answer", usage.customer_id, call.answer_id)
    usage.note = SEALED
    where = (usage.provider, usage.model, usage.model_group)
    return identity_of("poll", usage.customer_id, *where, *map(str, token_counts(usage)), f"{usage.cost:f}")


def tell_whose(usage: Usage, metadata: CallMetadata) -> None:
    """Set whether the caller's own subscription paid, and whether the call was a hidden experiment."""
    usage.own_subscription = is_yes(metadata.used_client_oauth_token)
    usage.silent_experiment = is_yes(metadata.is_silent_experiment)


def tell_used(usage: Usage, counted: UsageObject) -> None:
    """Set the other units of the call: tokens written to a cache, images, seconds."""
    of_input, of_output = counted.prompt_tokens_details, counted.completion_tokens_details
    if (  # hardly any call has one of them
        counted.cache_creation_input_tokens
        or counted.output_image_count
        or counted.seconds
        or counted.duration_seconds
        or (of_input is not None and (of_input.cache_creation_tokens or of_input.audio_length_seconds))
        or (of_output is not None and (of_output.image_count or of_output.video_length_seconds))
    ):
        _tell_used(usage, counted, of_input or _NO_DETAILS, of_output or _NO_DETAILS)


def _tell_used(usage: Usage, counted: UsageObject, of_input: TokenDetails, of_output: TokenDetails) -> None:
    usage.has_details = True
    written = counted.cache_creation_input_tokens
    usage.cache_write_tokens = _whole(of_input.cache_creation_tokens if written is None else written)
    images = counted.output_image_count
    usage.images = _whole(of_output.image_count if images is None else images)
    seconds = counted.seconds or counted.duration_seconds
    seconds = seconds or of_output.video_length_seconds or of_input.audio_length_seconds or 0
    if 0 < seconds <= _MOST_SECONDS:
        usage.seconds = picoseconds(Decimal(str(seconds)))


def counts_media(call: Call) -> bool:
    """Return whether LiteLLM counted seconds, images or characters."""
    metadata = call.metadata
    return (
        metadata is not None
        and metadata.usage_object is not None
        and any(map(_is_positive, _counts(metadata.usage_object)))
    )


def _counts(usage: UsageObject) -> list[Count]:
    counts = [usage.output_image_count, usage.seconds, usage.duration_seconds]
    for details in (usage.prompt_tokens_details, usage.completion_tokens_details):
        if details is not None:
            counts += [details.image_count, details.character_count]
            counts += [details.audio_length_seconds, details.video_length_seconds]
    return counts


def _whole(count: Count) -> int:
    """Return the count; 0 if it is no whole number up to 1e12, because a call is never refused for a detail."""
    try:
        return count_of(count)
    except (OddCount, ValueError, OverflowError):
        return 0


def _is_positive(count: Count) -> bool:
    return count is not None and count > 0
