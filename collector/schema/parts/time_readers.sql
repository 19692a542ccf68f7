  -- a time too far away for the type is its last; a request that does not say when it came comes now
  ns -> fromUnixTimestamp64Nano(toInt64(least(ns, 9000000000000000000))) AS instant,
  ns -> if(ns > 0, ns, toUInt64(toUnixTimestamp(now())) * 1000000000) AS arrival_ns
