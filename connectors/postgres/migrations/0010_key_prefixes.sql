-- How the ids of the LiteLLM customers begin that a key may map. NULL, as of keys made before: any id for a key of all
-- orgs, no new id for a key of some (docs/access.md).

ALTER TABLE api_keys ADD COLUMN customer_prefixes text[];
