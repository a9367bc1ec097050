-- The latest report about each partition: whether it stands still (docs/webhooks.md). `source` is `role/topic/number`, by our own
-- processes; the check bounds what the index takes.
ALTER TABLE webhook_delivery_logs ADD CONSTRAINT webhook_delivery_logs_source CHECK (octet_length(source) <= 1024) NOT VALID;
CREATE INDEX webhook_delivery_logs_state ON webhook_delivery_logs (source, "offset" DESC) WHERE direction = 'state';
