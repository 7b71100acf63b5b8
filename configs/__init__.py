"""What a derivative is made of: schema, presets, data sets and machines. Imports neither torch nor prefect."""
