"""The LiteLLM matrix: forty and more kinds of calls through real LiteLLM proxies of several versions, and what is billed for each."""
