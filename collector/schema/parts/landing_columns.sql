  tenant LowCardinality(String),
  received_ns UInt64,
  batch String,
  sender_key_id LowCardinality(String),
  sender_peer LowCardinality(String)
