-- What a call is billed at, beside what it cost, and what else of it may be priced. billed_usd NULL: no rate card applied, so a
-- billed call is billed at its cost_usd.

ALTER TABLE llm_usage_log
    ADD COLUMN billed_usd numeric,
    ADD COLUMN rate text NOT NULL DEFAULT '',
    ADD COLUMN power_level text NOT NULL DEFAULT '',
    ADD COLUMN cache_write_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN images bigint NOT NULL DEFAULT 0,
    ADD COLUMN seconds numeric NOT NULL DEFAULT 0,
    ADD COLUMN price_usd numeric;
