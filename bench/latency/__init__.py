"""How long calls, requests and releases take, measured with real processes. A busy machine makes every figure worse."""
