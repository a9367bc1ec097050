-- Parts that a call has left because a rebuilt ledger has counted it elsewhere, or has rejected it (recounted.sql). An event that still
-- bills the call shows that it was counted twice: `reconcile` looks for such events.
ALTER TABLE corrected_parts ADD COLUMN recounted boolean NOT NULL DEFAULT false;
