"""The table of call types knows every name that LiteLLM 1.81 to 1.110.2 reports."""

import json
from pathlib import Path

import pytest

from streams.core.metering.call_kinds import INFERENCE, JOB, JOBS, KINDS, MANAGEMENT, MEDIA, READABLE, UNKNOWN, kind_of

#: New names by the version that brought them: of `CallTypes`, and of the functions that report calls.
RECORDED: dict[str, list[str]] = json.loads(
    (Path(__file__).parents[4] / "fixtures" / "litellm_call_types.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("version", RECORDED)
def test_every_call_type_of_litellm_has_a_kind(version: str) -> None:
    assert RECORDED["1.81.0"] and RECORDED["1.110.2"]
    assert {name for name in RECORDED[version] if name not in KINDS} == set()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            INFERENCE,
            "acompletion aembedding amoderation aresponses anthropic_messages pass_through_endpoint _arealtime",
        ),
        (JOB, "aretrieve_batch retrieve_batch acreate_batch aget_responses avideo_status aretrieve_fine_tuning_job"),
        (MEDIA, "aimage_generation aimage_edit atranscription aspeech arerank aocr asearch acreate_video avideo_remix"),
        (MANAGEMENT, "acreate_file afile_content alist_batches aget_thread avector_store_create adelete_responses"),
    ],
)
def test_each_family_has_its_kind(kind: str, names: str) -> None:
    assert {name: kind_of(name) for name in names.split()} == dict.fromkeys(names.split(), kind)


def test_an_unknown_call_type_has_the_kind_unknown() -> None:
    assert kind_of("aquantum_completion") == UNKNOWN


def test_the_enumeration_name_that_some_databases_have_is_understood() -> None:
    assert kind_of("CallTypes.aretrieve_batch") == JOB


def test_an_ordinary_answer_belongs_to_no_job() -> None:
    """A call that is no job has its own identity: two answers are two calls, even if their ids are equal."""
    assert not JOBS & READABLE
    assert not {"acompletion", "aresponses", "anthropic_messages", "aimage_generation", "aembedding"} & JOBS
    assert {"aresponses", "responses"} <= READABLE
