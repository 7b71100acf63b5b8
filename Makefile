# `make math`, `make coder` and `make reasoning` run the main job on the embedded default, `make test` passes the tests.
# Both create .venv when it is missing and install what they need; nothing else is required.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: math coder reasoning smoke bench-verifiers scoreboard bench-training bench-rl bench-corpora cards check-gguf check-lm-eval fuzz interop test test-all test-ui lint types clean help

help:
	@echo "make math      seedling -> corpus -> pretrain -> sft -> rl -> evaluate -> release (under 10 minutes, 2 cores)"
	@echo "make coder     the same line for functions, rewarded by running them in a sandbox (under 15 minutes)"
	@echo "make reasoning the same line with a cold start in <think> tags and two RL stages (under 15 minutes)"
	@echo "make smoke     make math in its smallest size (under 90 seconds)"
	@echo "make test      the fast tests"
	@echo "make test-all  all tests that need no GPU"
	@echo "make test-ui   a browser at the Prefect page: forms, boards, cancel, pause, approve (needs chromium); shots in build/ui"
	@echo "make fuzz      the verifiers on a seed that was never tried, for FUZZ_SECONDS (120) seconds; FUZZ_SEED=N repeats one"
	@echo "make bench-verifiers  accuracy, speed and safety of the verifiers beside their peers (about 11 minutes, 2 cores)"
	@echo "make scoreboard       public graders and ours on the same answers; writes docs/scoreboard.md (over an hour, 2 cores)"
	@echo "make bench-training   supervised fine-tuning beside TRL: speed, memory, losses (about 20 minutes, 2 cores)"
	@echo "make bench-rl         reinforcement learning beside TRL, drawing beside generate() (about half an hour, 2 cores)"
	@echo "make bench-corpora    the corpus line beside datatrove: speed, recall, digests, memory (about 15 minutes, 1 core)"
	@echo "make cards            certify the built-in verifiers anew and write their cards (about 5 minutes, 2 cores)"
	@echo "make interop   the exported verifiers in TRL, lm-eval and verl, each run for real (about 5 minutes, 2 cores)"
	@echo "make check-lm-eval RELEASE=FOLDER  its scores in lm-eval beside ours (about 5 minutes, 2 cores)"
	@echo "make check-gguf RELEASE=FOLDER     its GGUF files in llama.cpp itself (minutes of compiling the first time)"
	@echo "make lint      ruff; make types: mypy"

math: $(RUN_STAMP)
	$(BIN)/derive math

coder: $(RUN_STAMP)
	$(BIN)/derive coder

reasoning: $(RUN_STAMP)
	$(BIN)/derive reasoning

smoke: $(RUN_STAMP)
	$(BIN)/derive math --preset math/smoke

# Two at a time, each on one thread: most tests wait or start processes.
test: export OMP_NUM_THREADS ?= 1
test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not ui"

test-all: $(DEV_STAMP)
	$(BIN)/python -m pytest -m "not gpu and not ui"

# Needs a Chromium: CHROMIUM names it, else /usr/bin/chromium. One part: make test-ui UI="-k cancelled"
test-ui: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,ui]"
	$(BIN)/python -m pytest -n 0 -m ui tests/ui $(UI)

fuzz: export FUZZ_SECONDS ?= 120
fuzz: $(DEV_STAMP)
	$(BIN)/python -m pytest -m "not slow" tests/property/test_verifiers_fuzz.py

# DERIVE_DATA names a mirror of the public data sets; rows that need it are skipped without. A small sample of each row:
# make bench-verifiers BENCH="--quick"
bench-verifiers: $(DEV_STAMP)
	$(BIN)/python tests/benchmarks/bench_verifiers.py --out build/bench-verifiers.json $(BENCH)

# Each public grader is installed in an environment of its own. One part again: make scoreboard BENCH="--parts hacks"
scoreboard: $(DEV_STAMP)
	$(BIN)/python tests/benchmarks/scoreboard.py --out build/scoreboard.json --page docs/scoreboard.md $(BENCH)

# Supervised fine-tuning beside TRL, which is installed in an environment of its own. On other cores:
# make bench-training BENCH="--cores 2,3 --rows 7M"
bench-training: $(DEV_STAMP)
	$(BIN)/python tests/benchmarks/bench_training.py --out build/bench-training.json $(BENCH)

# One row: make bench-rl BENCH="--rows seedling"
bench-rl: $(DEV_STAMP)
	$(BIN)/python tests/benchmarks/bench_rl.py --out build/bench-rl.json $(BENCH)

# Corpora beside datatrove, which is installed in an environment of its own. DERIVE_DATA names the mirror with Qwen2.5's
# tokenizer and the benchmarks. Memory at real sizes: make bench-corpora BENCH="--rows memory --megabytes 100 2000"
bench-corpora: $(DEV_STAMP)
	$(BIN)/python tests/benchmarks/bench_corpora.py --out build/bench-corpora.json $(BENCH)

# The cards of the built-in verifiers, which RL asks for. DERIVE_DATA names a mirror of the public data sets, on which
# recall and false positives are measured; without, the cards say so. Some: make cards VERIFIERS="math code"
cards: $(DEV_STAMP)
	$(BIN)/python -m verifiers.certify.renew $(VERIFIERS)

# Each tool is installed in an environment of its own. One of them: make interop BENCH="--only trl"
interop: $(DEV_STAMP)
	$(BIN)/python tests/benchmarks/interop.py --out build/interop.json $(BENCH)

# A release in lm-eval beside ours: make check-lm-eval RELEASE=FOLDER. DERIVE_DATA names the mirror with GSM8K.
check-lm-eval: $(DEV_STAMP)
	$(BIN)/python tests/benchmarks/lm_eval_check.py $(RELEASE) --out build/lm-eval.json $(BENCH)

# A release's GGUF files in llama.cpp, which is built from source the first time: make check-gguf RELEASE=FOLDER
check-gguf: $(DEV_STAMP)
	$(BIN)/python tests/benchmarks/gguf_check.py $(RELEASE) --out build/gguf.json $(BENCH)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .

types: $(DEV_STAMP)
	$(BIN)/mypy

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; run make PYTHON=python3.11 (or newer)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, so that no other requirement can pull another build of it.
$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .derive build *.egg-info
