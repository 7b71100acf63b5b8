"""Further rules against benchmark questions in a corpus, and the self-test that measures any such rule."""
