data_points Array(Tuple(attributes {part:attributes}, start_time_unix_nano UInt64, time_unix_nano UInt64, as_double Float64, as_int Int64, exemplars {part:exemplars}, flags UInt32))
