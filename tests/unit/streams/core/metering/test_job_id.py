"""A job has one id in all of LiteLLM's notations."""

from base64 import b64encode, urlsafe_b64encode

import pytest

from streams.core.metering.job_id import is_sealed, job_id_of, without_suffix

RESPONSE = "resp_68f1c2d4e5a6b7c8d9e0f1a2b3c4d5e6"
VIDEO = "video_68f1c2d4e5a6b7c8d9e0f1a2b3c4"
BATCH = "batch_68f1c2d4e5a6b7c8d9e0f1a2b3c4"


def packed(text: str) -> str:
    return b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("told", "job"),
    [
        ("batch_bp", "batch_bp"),
        ("batch_bp_batch_cost", "batch_bp"),
        (f"{RESPONSE}_background_cost", RESPONSE),
        (f"{VIDEO}_video_cost", VIDEO),
        (f"resp_{packed(f'litellm:custom_llm_provider:openai;model_id:m1;response_id:{RESPONSE}')}", RESPONSE),
        (f"video_{packed(f'litellm:custom_llm_provider:azure;model_id:m1;video_id:{VIDEO};served_model:x')}", VIDEO),
        (packed(f"litellm_proxy;model_id:m1;llm_batch_id:{BATCH}"), BATCH),
        (urlsafe_b64encode(f"litellm_proxy;model_id:m?>1;llm_batch_id:{BATCH}".encode()).decode().rstrip("="), BATCH),
        ("", ""),
    ],
)
def test_every_notation_gives_the_id_of_the_job(told: str, job: str) -> None:
    assert job_id_of(told) == job


def test_a_providers_short_id_includes_its_deployment() -> None:
    """Two deployments may both have a video `17`: their costs must not be mixed up."""
    one, other = (f"video_{packed(f'litellm:custom_llm_provider:x;model_id:{m};video_id:17')}" for m in ("m1", "m2"))
    assert job_id_of(one) != job_id_of(other)


def test_padding_makes_no_difference() -> None:
    result = packed("litellm:custom_llm_provider:x;model_id:m12;video_id:17")
    assert job_id_of(f"video_{result}") == job_id_of(f"video_{result.rstrip('=')}")


def test_an_id_that_only_looks_encoded_is_unchanged() -> None:
    assert job_id_of("chatcmpl-" + "a" * 40) == "chatcmpl-" + "a" * 40


def test_a_suffix_is_removed_once() -> None:
    assert without_suffix("a_batch_cost_batch_cost") == "a_batch_cost"


@pytest.mark.parametrize(("length", "alone"), [(15, False), (16, True)])
def test_from_sixteen_characters_on_a_providers_id_is_unique_by_itself(length: int, *, alone: bool) -> None:
    inside = "v" * length
    result = [
        f"video_{packed(f'litellm:custom_llm_provider:x;model_id:{one};video_id:{inside}')}" for one in ("m", "n")
    ]
    assert (job_id_of(result[0]) == job_id_of(result[1]) == inside) is alone
    assert (job_id_of(result[0]) == job_id_of(result[1])) is alone


def test_an_id_of_fewer_than_32_characters_is_never_encoded() -> None:
    """Short ids are compared as they are, padded to a multiple of four."""
    assert job_id_of("a" * 30 + "=") == "a" * 30 + "="
    assert job_id_of("a" * 31 + "=") == "a" * 31


@pytest.mark.parametrize(("length", "sealed"), [(120, False), (121, True)])
def test_an_opaque_id_of_more_than_120_characters_is_encrypted(length: int, *, sealed: bool) -> None:
    result = "resp_" + "!" * (length - len("resp_"))
    assert is_sealed(result) is is_sealed(result + "_background_cost") is sealed
    assert not is_sealed("video" + result[5:]) and not is_sealed(f"resp_{packed('litellm:' + 'x' * 200)}")
