"""The product's own programs as they run in production, each with a stopwatch."""
