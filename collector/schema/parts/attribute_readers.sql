  -- one lambda a kind: each function here is analysed anew at every insert, once for each place that names it
  (key, x) -> concat(key, multiIf(
    x.value = 'string_value', toJSONString(x.string_value), x.value = 'int_value', toString(x.int_value),
    x.value = 'double_value', if(isFinite(x.double_value), toString(x.double_value), toJSONString(toString(x.double_value))),
    x.value = 'bool_value', toString(x.bool_value), x.value = 'bytes_value', toJSONString(base64Encode(x.bytes_value)), 'null')) AS member,
  (kind, s, d, i, b, y, l, m) -> multiIf(
    kind = 'string_value', s, kind = 'double_value', toString(d), kind = 'int_value', toString(i),
    kind = 'bool_value', toString(b), kind = 'bytes_value', base64Encode(y), kind = 'none', '',
    concat(if(kind = 'array_value', '[', '{'), arrayStringConcat(arrayMap((key, x) -> member(key, x),
      arrayConcat(arrayResize(CAST([], 'Array(String)'), length(l)), arrayMap(key -> concat(toJSONString(key), ':'), m.key)),
      arrayConcat(l, m.value)), ','), if(kind = 'array_value', ']', '}'))) AS value_text,
  a -> CAST((a.key, arrayMap((kind, s, d, i, b, y, l, m) -> value_text(kind, s, d, i, b, y, l, m),
    a.value.value, a.value.string_value, a.value.double_value, a.value.int_value, a.value.bool_value, a.value.bytes_value,
    a.value.array_value.values, a.value.kvlist_value.values)), 'Map(LowCardinality(String), String)') AS attribute_map
