"""The peers' programs: each ends by itself and imports nothing of this product."""
