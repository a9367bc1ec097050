"""Scenarios: chat completions, and what their tokens mean."""

from decimal import Decimal

from tests.litellm_matrix.answers import PIECES
from tests.litellm_matrix.provider import Script
from tests.litellm_matrix.scenario import HELLO, Ask, Model, scenario

_CLAUDE = "anthropic/claude-sonnet-4-5-20250929"
_CACHED = {
    "prompt_tokens": 100_000,
    "completion_tokens": 10_000,
    "total_tokens": 110_000,
    "prompt_tokens_details": {"cached_tokens": 80_000},
}
_REASONED = {
    "prompt_tokens": 100_000,
    "completion_tokens": 10_000,
    "total_tokens": 110_000,
    "completion_tokens_details": {"reasoning_tokens": 8_000},
}
_ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
_TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@scenario("chat", "a chat completion", "chat")
async def _chat(ask: Ask) -> None:
    await ask.chat()


@scenario("stream-usage", "streamed, the client asks for usage", "chat")
async def _stream_usage(ask: Ask) -> None:
    await ask.stream(stream_options={"include_usage": True})


@scenario("stream-bare", "streamed, the client does not ask for usage", "chat")
async def _stream_bare(ask: Ask) -> None:
    await ask.stream()


@scenario("stream-left", "streamed, the client leaves in the middle", "chat", script=Script(steps=("leave",)))
async def _stream_left(ask: Ask) -> None:
    await ask.stream(leave_after=PIECES // 2 - 1)


@scenario("stream-cut", "streamed, the provider hangs up in the middle", "chat", script=Script(steps=("cut",)))
async def _stream_cut(ask: Ask) -> None:
    await ask.stream()


@scenario("tools", "the answer is a tool call", "chat", script=Script(tools=True))
async def _tools(ask: Ask) -> None:
    await ask.chat(tools=[_TOOL])


@scenario("choices", "three answers to one question", "chat", script=Script(n=3))
async def _choices(ask: Ask) -> None:
    await ask.chat(n=3)


@scenario("zero-usage", "the provider reports no tokens", "chat", script=Script(usage=_ZERO))
async def _zero_usage(ask: Ask) -> None:
    await ask.chat()


@scenario("cache-hit", "the same question twice, the second answered from LiteLLM's cache", "chat")
async def _cache_hit(ask: Ask) -> None:
    for _ in range(2):
        await ask.chat(cache={"use-cache": True})


@scenario("prompt-cached", "most of the prompt is in OpenAI's cache", "chat", script=Script(usage=_CACHED))
async def _prompt_cached(ask: Ask) -> None:
    await ask.chat()


@scenario(
    "cache-written",
    "Anthropic's cache is written and read",
    "chat",
    models=(Model("cache-written", _CLAUDE),),
    script=Script(
        usage={
            "input_tokens": 1_000,
            "output_tokens": 1_000,
            "cache_read_input_tokens": 40_000,
            "cache_creation_input_tokens": 10_000,
        }
    ),
)
async def _cache_written(ask: Ask) -> None:
    await ask.chat(max_tokens=2000)


@scenario(
    "reasoning",
    "most of the answer is reasoning",
    "chat",
    models=(Model("reasoning", "openai/o4-mini"),),
    script=Script(usage=_REASONED),
)
async def _reasoning(ask: Ask) -> None:
    await ask.chat()


@scenario(
    "service-tier",
    "the service tier `flex`, at half the price",
    "chat",
    models=(Model("service-tier", "openai/o4-mini"),),
    script=Script(tier="flex"),
)
async def _service_tier(ask: Ask) -> None:
    await ask.chat(service_tier="flex")


@scenario(
    "own-price",
    "a deployment with its own price per token",
    "chat",
    models=(
        Model("own-price", "openai/gpt-4o", params={"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}),
    ),
    owed=Decimal("0.12"),
)
async def _own_price(ask: Ask) -> None:
    await ask.chat()


@scenario(
    "free-price",
    "a deployment whose price is 0",
    "chat",
    models=(
        Model("free-price", "openai/gpt-4.1-mini", params={"input_cost_per_token": 0, "output_cost_per_token": 0}),
    ),
    owed=Decimal(0),
)
async def _free_price(ask: Ask) -> None:
    await ask.chat()


@scenario(
    "no-price", "a model that LiteLLM has no price for", "chat", models=(Model("no-price", "openai/house-model"),)
)
async def _no_price(ask: Ask) -> None:
    await ask.chat()


@scenario(
    "price-beside",
    "two deployments of one model, one of them with a price of 0: a call to each",
    "chat",
    models=(
        Model("price-beside", "openai/gpt-4.1"),
        Model("price-beside-own", "openai/gpt-4.1", {"input_cost_per_token": 0, "output_cost_per_token": 0}, "free"),
    ),
    owed=Decimal("0.28"),
)
async def _price_beside(ask: Ask) -> None:
    await ask.chat("price-beside-own")
    await ask.chat()


@scenario("same-id", "the provider gives two answers one id", "chat", script=Script(id="always-the-same"))
async def _same_id(ask: Ask) -> None:
    for word in ("one", "two"):
        await ask.chat(messages=[{"role": "user", "content": word}])


@scenario("same-call-id", "the client sends one `x-litellm-call-id` with two calls", "chat")
async def _same_call_id(ask: Ask) -> None:
    for word in ("one", "two"):
        await ask.chat(headers={"x-litellm-call-id": "chosen"}, messages=[{"role": "user", "content": word}])


@scenario("unicode", "names of 300 characters, with emoji, and a NUL", "chat")
async def _unicode(ask: Ask) -> None:
    await ask.chat(user="Zoë-客户-🐘-\u0000" + "x" * 290)


@scenario("no-log", 'the client sends `"no-log": true`', "chat")
async def _no_log(ask: Ask) -> None:
    await ask.post("/v1/chat/completions", {"model": "no-log", "messages": HELLO, "no-log": True})
