Array(Tuple(key String, value Tuple({part:scalar})))
