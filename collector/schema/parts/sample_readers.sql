  (m, k) -> indexOf(m.name, k) AS at,
  (m, k) -> m.gauge.data_points[at(m, k)] AS gauge_points,
  (m, k) -> m.sum.data_points[at(m, k)] AS sum_points,
  (m, k) -> gauge_points(m, k).as_double[1] + gauge_points(m, k).as_int[1] + sum_points(m, k).as_double[1] + sum_points(m, k).as_int[1] AS signal_raw,
  (m, k) -> if(at(m, k) > 0 AND isFinite(signal_raw(m, k)), signal_raw(m, k), NULL) AS signal,
  m -> arrayMax(arrayConcat(arrayFlatten(m.gauge.data_points.time_unix_nano), arrayFlatten(m.sum.data_points.time_unix_nano), [toUInt64(0)])) AS sampled_ns