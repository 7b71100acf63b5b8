"""What the verifiers `json_schema` and `table` read with: fenced blocks, strict JSON, exact values, tables."""
