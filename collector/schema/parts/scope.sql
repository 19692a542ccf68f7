scope Tuple(name String, version String, attributes {part:attributes}, dropped_attributes_count UInt32)
