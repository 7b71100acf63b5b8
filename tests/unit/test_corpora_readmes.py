"""Prose of package descriptions: what is a paragraph of sentences, and that the two splits share no package."""

from __future__ import annotations

from configs.settings.corpus import CorpusSource
from corpora.dropped import DropLog
from corpora.sources import identity, open_source
from corpora.sources.package_readmes import MIN_CHARACTERS, prose

README = """# A package

[![build](https://badge)](https://ci)

A package that reads [tables](https://example.org/tables) and says
what is wrong with them, line by line.

```python
the_code = "is never prose, however many words stand in it."
```

| a | table is no prose either, though it has words. |

* a list of words that goes on and on and on.

.. code-block:: python

    more_code = "that belongs to the directive above it, all of it."

To install it into the environment of your choice, type:

See `the manual <https://example.org>`_ for all that it does with the files of other people.
"""


def test_prose_is_the_paragraphs_of_sentences() -> None:
    assert prose(README) == (
        "A package that reads tables and says what is wrong with them, line by line.\n"
        "See the manual for all that it does with the files of other people.\n"
    )
    assert prose(README.replace("\n", "\r\n")) == prose(README)
    assert prose("") == ""


def test_the_splits_divide_the_packages() -> None:
    found = {}
    for split in ("train", "heldout", "all"):
        dropped = DropLog()
        documents = list(open_source(CorpusSource(name="package_readmes", split=split), "tokens", dropped))
        found[split] = {one.id for one in documents}
        assert all(len(one.text) >= MIN_CHARACTERS for one in documents)
    assert found["train"] and found["heldout"] and not found["train"] & found["heldout"]
    assert found["all"] == found["train"] | found["heldout"]
    assert identity(CorpusSource(name="package_readmes"))["version"].startswith("packages ")
