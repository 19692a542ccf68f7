  tenant,
  sender_key_id,
  sender_peer,
  toDateTime(intDiv(received_ns, 1000000000), 'UTC') AS received_at
