-- An alert is its rule and the labels that identify it. What `labels` has beside these (a version, a region) may change
-- while it lasts, so that the newest state of an alert is found by its key alone; '' on rows from before.

ALTER TABLE {database}.alert_transitions {on_cluster} ADD COLUMN IF NOT EXISTS alert_key String CODEC(ZSTD(1));
