"""Real services for the tests: a Kafka broker and a Postgres cluster on loopback."""
