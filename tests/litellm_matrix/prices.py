"""What a provider charges, in dollars, by its public price list of November 2026: compared with LiteLLM's prices."""

from collections.abc import Mapping
from decimal import Decimal

_M = Decimal(1_000_000)
#: Dollars for a million tokens of input, cached input, output.
_TOKENS: Mapping[str, tuple[str, str, str]] = {
    "gpt-4o-mini": ("0.15", "0.075", "0.60"),
    "gpt-4o-mini-2024-07-18": ("0.15", "0.075", "0.60"),
    "gpt-4o": ("2.50", "1.25", "10"),
    "gpt-4.1": ("2", "0.50", "8"),
    "gpt-4.1-mini": ("0.40", "0.10", "1.60"),
    "o4-mini": ("1.10", "0.275", "4.40"),
    "claude-sonnet-4-5-20250929": ("3", "0.30", "15"),
    "gpt-3.5-turbo-instruct": ("1.50", "1.50", "2"),
    "text-embedding-3-small": ("0.02", "0.02", "0"),
    "gpt-image-1": ("5", "1.25", "40"),
    "gpt-realtime": ("4", "0.40", "16"),
    "gemini-2.5-flash": ("0.30", "0.03", "2.50"),
    "omni-moderation-latest": ("0", "0", "0"),
    # Of a provider that LiteLLM has no price for.
    "house-model": ("1", "1", "2"),
}
#: Of o4-mini with the service tier `flex`.
_FLEX = Decimal("0.5")
CACHE_WRITE = Decimal("3.75") / _M  # of claude-sonnet-4-5, a token
SECOND = Decimal("0.0001")  # of sound, whisper-1
CHARACTER = Decimal("0.000015")  # tts-1
SEARCH = Decimal("0.002")  # rerank-v3.5
VIDEO_SECOND = Decimal("0.1")  # sora-2
BATCH = Decimal("0.5")  # OpenAI's factor for batches


def charge(model: str, tokens_input: int, tokens_output: int, cached: int = 0, *, flex: bool = False) -> Decimal:
    """Dollars for the tokens of one call; `tokens_input` includes the cached ones."""
    price_in, price_cached, price_out = (Decimal(price) / _M for price in _TOKENS[model])
    whole = (tokens_input - cached) * price_in + cached * price_cached + tokens_output * price_out
    return whole * _FLEX if flex else whole
