"""The seedling: the factory's own base checkpoint of a few million parameters, and the command that makes it.

`SEEDLING_PATH` is a folder in Hugging Face layout (Qwen2 architecture) that every recipe can start from as
`seedling`. Made by `python -m derivatives.seedling OUT/`; its card is `checkpoint/README.md`.
"""

from pathlib import Path

SEEDLING_PATH = Path(__file__).parent / "checkpoint"
