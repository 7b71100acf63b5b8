"""What the seedling reads: one file per source, each with `document(rng) -> str`."""
