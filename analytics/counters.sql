-- name: once
AND (NOT /*router*/ OR recording NOT IN (
    SELECT recording FROM engine_samples
    WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
      AND NOT /*router*/ /*filter:samples*/
))
