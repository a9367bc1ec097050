"""The LiteLLM matrix: more than forty kinds of calls through real LiteLLM proxies of several versions, and what is
billed for each.
"""
