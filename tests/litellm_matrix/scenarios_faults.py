"""Scenarios: calls that fail, and which customer a call belongs to."""

from tests.litellm_matrix.provider import Script
from tests.litellm_matrix.scenario import Ask, Model, scenario

_TEAM = {"team_id": "t.team", "user_id": None}


@scenario("retry-500", "the provider answers 500, then 200", "faults", script=Script(steps=("500", "ok")))
async def _retry_500(ask: Ask) -> None:
    await ask.chat()


@scenario("retry-429", "the provider answers 429, then 200", "faults", script=Script(steps=("429", "ok")))
async def _retry_429(ask: Ask) -> None:
    await ask.chat()


@scenario("all-failed", "the provider answers 500 to every try", "faults", script=Script(steps=("500",)))
async def _all_failed(ask: Ask) -> None:
    await ask.chat()


@scenario(
    "timeout",
    "the provider does not answer in time",
    "faults",
    models=(Model("timeout", params={"timeout": 1.5, "max_retries": 0}),),
    script=Script(steps=("hang",)),
)
async def _timeout(ask: Ask) -> None:
    await ask.chat()


@scenario(
    "fallback",
    "the first model fails, another answers",
    "faults",
    models=(Model("fallback"), Model("fallback-second", "openai/o4-mini", at="fallback-second")),
    script=Script(steps=("500",)),
)
async def _fallback(ask: Ask) -> None:
    await ask.chat()


@scenario(
    "alias", "the client asks for an alias of a model group", "faults", models=(Model("alias-target", at="alias"),)
)
async def _alias(ask: Ask) -> None:
    await ask.chat()


@scenario("guard-before", "a guardrail refuses the question", "faults")
async def _guard_before(ask: Ask) -> None:
    await ask.chat(guardrails=["refuse-before"])


@scenario("guard-after", "a guardrail refuses the answer", "faults")
async def _guard_after(ask: Ask) -> None:
    await ask.chat(guardrails=["refuse-after"])


@scenario("bad-request", "the provider answers 400", "faults", script=Script(steps=("400",)))
async def _bad_request(ask: Ask) -> None:
    await ask.chat()


@scenario("unknown-key", "a key that LiteLLM does not know, or has blocked", "faults", who=None)
async def _unknown_key(ask: Ask) -> None:
    await ask.chat()


@scenario("over-budget", "a key without budget", "faults", who={"over_budget": True})
async def _over_budget(ask: Ask) -> None:
    await ask.chat()


@scenario("end-user", "the customer in the field `user`", "who")
async def _end_user(ask: Ask) -> None:
    await ask.chat(user="c.field")


@scenario("end-user-header", "the customer in the header `x-litellm-end-user-id`", "who")
async def _end_user_header(ask: Ask) -> None:
    await ask.chat(headers={"x-litellm-end-user-id": "c.header"})


@scenario(
    "messages-user",
    "Anthropic's `metadata.user_id`",
    "who",
    models=(Model("messages-user", "anthropic/claude-sonnet-4-5-20250929"),),
)
async def _messages_user(ask: Ask) -> None:
    body = {"model": "messages-user", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}
    await ask.post("/v1/messages", {**body, "metadata": {"user_id": "c.metadata"}})


@scenario("team-key", "a key of a team, without a user", "who", who=_TEAM)
async def _team_key(ask: Ask) -> None:
    await ask.chat()


@scenario(
    "org-key",
    "a key of an organisation, without team and user",
    "who",
    who={"org_id": "o.org", "user_id": None, "team_id": None},
)
async def _org_key(ask: Ask) -> None:
    await ask.chat()


@scenario("key-alone", "a key without an owner", "who", who={"user_id": None, "team_id": None})
async def _key_alone(ask: Ask) -> None:
    await ask.chat()


@scenario("spoofed", "the client writes the owner of another key into its metadata", "who")
async def _spoofed(ask: Ask) -> None:
    stolen = {"user_api_key_user_id": "u.chat", "user_api_key_team_id": "t.chat", "user_api_key_hash": "0" * 64}
    await ask.chat(metadata={**stolen, "tags": ["a"]})


#: A model of its own: up to 1.81 a price in a request is the model's price for every later call through that process.
_OWN_MODEL = Model("spoofed-price", "openai/gpt-4o-mini-2024-07-18")


@scenario(
    "spoofed-price",
    "the client writes a price of 0 into its request",
    "who",
    models=(_OWN_MODEL,),
)
async def _spoofed_price(ask: Ask) -> None:
    await ask.chat(input_cost_per_token=0, output_cost_per_token=0)
    await ask.chat()
