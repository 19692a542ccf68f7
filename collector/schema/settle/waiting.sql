-- Which of the steps have anything to look at: a step that has nothing costs its whole analysis to find that out.
SELECT 'triton' AS step FROM {database}.triton_spans WHERE inserted_at > {since:DateTime64(3, 'UTC')} LIMIT 1
UNION ALL
SELECT 'claims' AS step FROM {database}.request_claims WHERE inserted_at > {since:DateTime64(3, 'UTC')} - INTERVAL 10 MINUTE LIMIT 1
UNION ALL
SELECT 'orphans' AS step FROM {database}.request_orphans WHERE inserted_at > {since:DateTime64(3, 'UTC')} - INTERVAL 10 MINUTE LIMIT 1
UNION ALL
SELECT 'finished' AS step FROM {database}.finished_requests WHERE inserted_at > {since:DateTime64(3, 'UTC')} - toIntervalSecond({looks_back:UInt32}) LIMIT 1
