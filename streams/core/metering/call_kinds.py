"""The kind of each of LiteLLM's call types: one table for its versions 1.81 to 1.110.2.

LiteLLM takes the name from the called function, so most occur twice: `completion` and `acompletion`. Source:
`CallTypes` in litellm/types/utils.py, the functions under `@client`, and NON_INFERENCE_CALL_TYPES in
litellm/constants.py; tests/fixtures/litellm_call_types.json records the names. ADR 0016 explains the treatment of each
family.
"""

from collections.abc import Iterator

#: Kind: priced by tokens. Tokens without a cost mean that LiteLLM has no price.
INFERENCE = "inference"
#: Kind: reads or ends a job at the provider: batch, video, fine-tuning, background response.
JOB = "job"
#: Kind: priced by seconds, images, characters, pages or searches. Without a cost there is no price, regardless of
#: tokens.
MEDIA = "media"
#: Kind: costs nothing by itself: files, lists, threads.
MANAGEMENT = "management"
#: Kind of a name that this release does not know. The call counts as inference and is reported.
UNKNOWN = "unknown"

_INFERENCE = """
    completion text_completion embedding moderation responses compact_responses anthropic_messages generate_content
    generate_content_stream adapter_generate_content pass_through_endpoint llm_passthrough_route send_message
    send_message_streaming run_thread run_thread_stream create_interaction create ingest query extraction decisions
    systemone _realtime _responses_websocket call_mcp_tool vector_store_search
"""
_MEDIA = """
    image_generation image_edit image_variation speech transcription ocr rerank search create_video video_generation
    video_edit video_remix video_extension
"""
_JOB = """
    create_batch retrieve_batch cancel_batch batch_retrieve video_status video_retrieve video_retrieve_job
    create_fine_tuning_job retrieve_fine_tuning_job cancel_fine_tuning_job get_responses cancel_responses
    get_interaction cancel_interaction get cancel
"""
_MANAGEMENT = """
    list_batches list_fine_tuning_jobs list_files create_file file_retrieve file_delete file_list file_content
    get_assistants create_assistants delete_assistant create_thread get_thread _add_message add_message get_messages
    video_content video_list video_delete video_create_character video_get_character
    vector_store_create vector_store_retrieve vector_store_list vector_store_update vector_store_delete
    vector_store_file_create vector_store_file_list vector_store_file_retrieve vector_store_file_content
    vector_store_file_update vector_store_file_delete
    create_container list_containers retrieve_container delete_container list_container_files upload_container_file
    container_file_content create_sandbox delete_sandbox run_code code_interpreter_tool
    create_realtime_client_secret realtime_calls create_realtime_transcription_session
    create_realtime_translation_client_secret realtime_translation_calls
    delete_responses list_input_items delete_interaction list_mcp_tools
    create_skill get_skill list_skills delete_skill create_agent get_agent list_agents delete_agent
    list_agent_versions list_versions list update delete retrieve retrieve_content
    create_eval get_eval list_evals update_eval delete_eval cancel_eval create_run get_run list_runs delete_run
    cancel_run
"""
#: Call types that begin a job. Later reads repeat its id and may have the cost, so creation and reads are one job.
_CREATES_JOB = "create_video video_generation video_edit video_remix video_extension"
#: Call types of separate calls whose answer can be read again by its id (`get_responses`).
_CAN_BE_READ = "responses create_interaction create"


def _both(names: str) -> Iterator[str]:
    """Return each name, and the name of its asynchronous function."""
    for name in names.split():
        yield name
        # LiteLLM writes `_arealtime`, `a_add_message`, `_aresponses_websocket`.
        yield f"_a{name[1:]}" if name in ("_realtime", "_responses_websocket") else f"a{name}"


#: Kind by call type; `""` = the payload names none.
KINDS = {
    name: kind
    for kind, names in ((INFERENCE, _INFERENCE), (MEDIA, _MEDIA), (JOB, _JOB), (MANAGEMENT, _MANAGEMENT))
    for name in _both(names)
} | {"": INFERENCE}
#: Call types whose `id` is the id of a job: reads and creations of jobs.
JOBS = frozenset([*_both(_JOB), *_both(_CREATES_JOB)])
#: Call types that read the answer of a response that ran in the background.
READS = frozenset(_both("get_responses"))
#: Call types of calls whose answer can be read again as a job.
READABLE = frozenset(_both(_CAN_BE_READ))


def kind_of(call_type: str) -> str:
    """Return one of the five kinds; `UNKNOWN` for a name that is not in the table."""
    return KINDS.get(call_type) or KINDS.get(plain_name(call_type), UNKNOWN)


def plain_name(call_type: str) -> str:
    """Remove `CallTypes.`, which some versions wrote into their database, from the name."""
    return call_type.removeprefix("CallTypes.")
