"""The contracts with those who use this product, as the last release recorded them, and what would break them."""
