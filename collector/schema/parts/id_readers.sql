  -- an id of another length, or of zeros, is none
  x -> if(length(x) = 16 AND x != unhex('00000000000000000000000000000000'), lower(hex(x)), '') AS trace_text,
  x -> if(length(x) = 8 AND x != unhex('0000000000000000'), lower(hex(x)), '') AS span_text
