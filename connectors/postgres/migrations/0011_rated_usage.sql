-- What a call is billed at, beside what it cost. NULL: no rate card applied, so a billed call is billed at its cost_usd.

ALTER TABLE llm_usage_log
    ADD COLUMN billed_usd numeric,
    ADD COLUMN rate text NOT NULL DEFAULT '',
    ADD COLUMN power_level text NOT NULL DEFAULT '';
