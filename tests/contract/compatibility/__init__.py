"""Contracts with the users of this product, as the last release recorded them, and which changes break them."""
