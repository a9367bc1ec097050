"""Keys of LLM providers that users own. They are stored encrypted; one endpoint decrypts them, for the LiteLLM plugin."""
