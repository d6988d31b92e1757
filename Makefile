# Needs a Python of 3.11 or later, and nothing else. `make` alone lists the targets.
#
#   PYTHON=...       the Python to use; by default the first of python3.11 to python3.14 and python3 that will do
#   INSTALLER=pip    install with plain pip, slower, where uv does not run or does not find your package index
#   ARGS=...         passed on: `make demo ARGS=--yes`, `make dev ARGS=--help`, `make test ARGS='-k claim'`
#   JOBS=2           how many processes `make test` uses

VENV      ?= .venv
INSTALLER ?= uv
JOBS      ?= 2
PYTHON    ?=
ARGS      ?=

BIN  := $(VENV)/bin
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11

.DELETE_ON_ERROR:
.PRECIOUS: %/bin/pip.stamp %/bin/uv.stamp
.PHONY: help demo dev test bench prove check peers lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##/make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/run.stamp  ## the loan workflow: killed in the middle, taken over, approved by you
	@$(BIN)/python -m graphs.loan_demo $(ARGS)

dev: $(VENV)/run.stamp  ## the database, a worker and the workflows of langgraph.json
	@$(BIN)/control dev $(ARGS)

# The last part is a sample on the PostgreSQL of the operating system, skipped where it has none. pytest ends with 5
# where it finds nothing to run, as ARGS may well want for some of the parts.
test: $(VENV)/dev.stamp  ## every test, in about twelve minutes on two cores
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0 -m 'not prove and not alone' $(ARGS) $(if $(ARGS),|| [ $$? -eq 5 ])
	@$(BIN)/python -m pytest -m 'alone and not prove' $(ARGS) || [ $$? -eq 5 ]
	@CONTROL_TEST_POSTGRES=installed $(BIN)/python -m pytest -n $(JOBS) --dist loadfile \
	    -m 'installed and not prove' $(ARGS) || [ $$? -eq 5 ]

bench: $(VENV)/dev.stamp  ## the measurements that the README quotes
	@$(BIN)/python -m tests.bench $(ARGS)

prove: $(VENV)/dev.stamp  ## the proofs in full size; takes hours
	$(BIN)/python -m pytest -o faulthandler_timeout=0 --hypothesis-profile proof -m prove $(ARGS)

check: $(VENV)/dev.stamp  ## style, types and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/tidy $(ARGS)

peers: .venv-peers/stamp  ## an environment with the stock `langgraph dev`, which must load our langgraph.json too

lock: $(BIN)/uv.stamp  ## pin the requirements anew; UPGRADE=1 takes newer versions
	for name in requirements requirements-dev requirements-uv requirements-build requirements-peers; do \
	    $(LOCK) $(if $(UPGRADE),--upgrade) $$name.in --output-file $$name.txt || exit; done

clean:  ## delete what make made; the database of `make dev` in .control stays
	rm -rf $(VENV) .venv-peers .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# --- environments: each stamp is newer than everything it was made from -------------------------------------------

PROJECT := pyproject.toml requirements.in requirements-build.txt

$(VENV)/dev.stamp: requirements-dev.txt requirements.txt $(PROJECT) | $(BIN)/$(INSTALLER).stamp
	$(call install,$(VENV),requirements-dev.txt)
	@touch $(VENV)/run.stamp $@

$(VENV)/run.stamp: requirements.txt $(PROJECT) | $(BIN)/$(INSTALLER).stamp
	$(call install,$(VENV),$(if $(wildcard $(VENV)/dev.stamp),requirements-dev.txt,requirements.txt))
	@touch $@

.venv-peers/stamp: requirements-peers.txt requirements-build.txt | .venv-peers/bin/$(INSTALLER).stamp
	$(call install,.venv-peers,requirements-peers.txt)
	@touch $@

%/bin/uv.stamp: %/bin/pip.stamp requirements-uv.txt
	@$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@touch $@

%/bin/pip.stamp:
	@PYTHON='$(PYTHON)' sh .ci/venv $*
	@touch $@

# $(call install,<environment>,<lock>): exactly the lock, then the project itself, which is built without a download.
uv  = $(1)/bin/uv pip sync --quiet --python $(1)/bin/python --require-hashes requirements-build.txt $(2) \
      && $(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .
pip = $(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.txt -r $(2) \
      && $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

define install
	@echo 'Installing $(2) into $(1) ...'
	@$($(INSTALLER)) || { echo 'The packages could not be installed; the lines above say why.'; \
	    echo 'uv does not read the settings of pip. Plain pip: make $(MAKECMDGOALS) INSTALLER=pip'; exit 1; }
endef
