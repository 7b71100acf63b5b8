"""What a stage will take before it is run: tokens, time and memory, by arithmetic that loads no weights."""
