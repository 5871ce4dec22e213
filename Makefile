# make demo: the whole method in miniature    make real: a real chat model to one's taste    make test: the suite    make check: format, lint, types
# make bench: speed and memory beside a peer    make bench-speed: ours alone
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo real test test-slow check bench bench-peers bench-vllm bench-control bench-imitation bench-llamacpp bench-lm-eval bench-speed bench-labelling docs clean

# a real chat model aligned to a taste of one's own
real: $(READY)
	$(BIN)/amenable get smollm2
	$(BIN)/amenable real $(ARGS)

demo: $(READY)
	$(BIN)/amenable demo $(ARGS)

# children of a test are processes of this package: compiled once, whatever the environment says
test test-slow: export PYTHONDONTWRITEBYTECODE =

test: $(READY_DEV)
	$(BIN)/python -m pytest -m "not slow and not cuda" -n 2 $(ARGS)

test-slow: $(READY_DEV)
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(READY_DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy amenable

bench: $(READY_DEV) bench-peers
	$(BIN)/python -m benchmarks.peers $(ARGS)

bench-peers: .venv-peers/.ready .venv-peers-ppo/.ready

# a peer that is large and cannot be had everywhere; what it brings for images and sound would need another torch.
# It also runs the slow tests of --sampler vllm and benchmarks/vllm_rollouts.py, with this folder as PYTHONPATH
bench-vllm: .venv-peers-vllm/.ready
	.venv-peers-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec

bench-control: $(READY_DEV) .venv-peers-control/.ready
	$(BIN)/python -m benchmarks.control $(ARGS)

bench-imitation: $(READY_DEV) .venv-peers-imitation/.ready
	$(BIN)/python -m benchmarks.control_imitation $(ARGS)

bench-llamacpp: $(READY_DEV) .venv-peers-llamacpp/.ready
	$(BIN)/amenable get smollm2
	$(BIN)/python -m benchmarks.llamacpp_agreement $(ARGS)

# compiled on the spot, which takes some minutes; without the parts for images
.venv-peers-llamacpp/.ready: export CMAKE_ARGS = -DLLAMA_CURL=OFF -DGGML_NATIVE=ON -DLLAVA_BUILD=OFF

bench-lm-eval: $(READY_DEV) .venv-lm-eval/.ready
	$(BIN)/python -m benchmarks.lm_eval_agreement $(ARGS)

# wandb and trackio, which the suite does without
.PHONY: test-trackers
test-trackers: .venv-trackers/.ready
	.venv-trackers/bin/python -m pytest tests/train/test_trackers.py $(ARGS)

# Ray, which the suite does without
.PHONY: test-ray
test-ray: .venv-peers-ray/.ready
	.venv-peers-ray/bin/python -m pytest -m slow tests/cluster $(ARGS)

bench-speed: $(READY_DEV)
	$(BIN)/python -m benchmarks.speed $(ARGS)

bench-labelling: $(READY_DEV)
	$(BIN)/python -m benchmarks.labelling $(ARGS)

# the pages as a site in site/; its environment has neither torch nor this package
docs: .venv-docs/.ready
	.venv-docs/bin/python -m mkdocs build --strict $(ARGS)

.venv-docs/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^docs = \["\(.*\)"\]/\1/p' pyproject.toml)"
	touch .venv-docs/.ready

# each peer in an environment of its own
.venv-%/.ready: benchmarks/%.txt constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -r benchmarks/$*.txt
	touch .venv-$*/.ready

# what `make demo` and the pages that its last lines name run with; torch first, so that nothing else decides which
# build of it is taken
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e ".[serve,gguf]"
	touch $(READY)

# tests, checks and benchmarks need the dev extra too
$(READY_DEV): $(READY)
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps axe-playwright-python  # for its axe.min.js alone
	touch $(READY_DEV)

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
