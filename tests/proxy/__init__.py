"""A LiteLLM proxy of the newest release in front of the product: `make trial`."""
