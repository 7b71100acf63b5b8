"""Parts of the math verifier: where the answer stands in a completion, and whether two answers are equal."""
