  sender_tenant LowCardinality(String),
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String)
