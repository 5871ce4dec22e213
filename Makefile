# make demo: the whole method in miniature    make test: the suite    make check: format, lint, types
# make bench: speed and memory beside a peer    make bench-speed: ours alone
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow check bench bench-peers bench-vllm bench-lm-eval bench-speed bench-labelling clean

demo: $(READY)
	$(BIN)/amenable demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not cuda" -n 2 $(ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy amenable

bench: $(READY) bench-peers
	$(BIN)/python -m benchmarks.peers $(ARGS)

bench-peers: .venv-peers/.ready .venv-peers-ppo/.ready

# a peer that is large and cannot be had everywhere; what it brings for images and sound would need another torch
bench-vllm: .venv-peers-vllm/.ready
	.venv-peers-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec

bench-lm-eval: $(READY) .venv-lm-eval/.ready
	$(BIN)/python -m benchmarks.lm_eval_agreement $(ARGS)

bench-speed: $(READY)
	$(BIN)/python -m benchmarks.speed $(ARGS)

bench-labelling: $(READY)
	$(BIN)/python -m benchmarks.labelling $(ARGS)

# each peer in an environment of its own
.venv-%/.ready: benchmarks/%.txt constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -r benchmarks/$*.txt
	touch .venv-$*/.ready

# torch first, so that nothing else decides which build of it is taken
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt axe-playwright-python  # for its axe.min.js alone
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
