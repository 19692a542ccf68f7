  a -> CAST((a.key, arrayMap((kind, s, d, i, b, y) -> multiIf(
    kind = 'string_value', s, kind = 'double_value', toString(d), kind = 'int_value', toString(i),
    kind = 'bool_value', toString(b), kind = 'bytes_value', base64Encode(y), ''),
    a.value.value, a.value.string_value, a.value.double_value, a.value.int_value, a.value.bool_value, a.value.bytes_value)),
    'Map(LowCardinality(String), String)') AS scalar_map
