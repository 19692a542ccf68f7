scope Tuple(name String, version String, attributes {part:scalar_attributes}, dropped_attributes_count UInt32)
