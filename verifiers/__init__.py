"""Judging: verifiers, the pool that runs them, and the task sets they judge. Start at README.md."""
