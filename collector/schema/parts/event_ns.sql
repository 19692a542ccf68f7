  (events, k) -> events.time_unix_nano[indexOf(events.name, k)] AS event_ns
