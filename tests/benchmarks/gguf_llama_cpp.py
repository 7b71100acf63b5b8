"""What llama.cpp makes of a GGUF file: tokens of texts, and greedy answers to chat prompts. Run by `gguf_check.py`.

    python tests/benchmarks/gguf_llama_cpp.py MODEL.gguf REQUEST.json > found.json

It runs in an environment with llama-cpp-python and imports nothing of this project. The request holds `texts`,
`prompts` (token ids, as this project renders a chat), `questions` (the same as messages, which llama.cpp renders by the
template in the file) and `max_tokens`.
"""

from __future__ import annotations

import json
import sys

from llama_cpp import Llama, __version__


def main(path: str, request_file: str) -> None:
    """Answer the request as one JSON object on stdout."""
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    model = Llama(model_path=path, n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False, seed=0)
    tokens = [model.tokenize(text.encode(), add_bos=False, special=True) for text in request["texts"]]
    more = {"max_tokens": request["max_tokens"], "temperature": 0.0, "repeat_penalty": 1.0}
    plain = [model.create_completion(ids, **more)["choices"][0] for ids in request["prompts"]]
    chats = [
        model.create_chat_completion([{"role": "user", "content": text}], **more)["choices"][0]
        for text in request["questions"]
    ]
    json.dump(
        {
            "version": __version__,
            "architecture": model.metadata["general.architecture"],
            "tokens": tokens,
            "answers": [{"text": one["text"], "finish": one["finish_reason"]} for one in plain],
            "chats": [{"text": one["message"]["content"], "finish": one["finish_reason"]} for one in chats],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
