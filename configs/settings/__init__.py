"""The settings of each kind of stage, and what they share; `configs.schema` puts them together."""
