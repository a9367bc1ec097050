-- Whether a cache answered the call: such a call is billed without a cost, and a call without a price is not. NULL: not known, as in
-- all rows of before.
ALTER TABLE llm_usage_log ADD COLUMN cache_hit boolean;
