# make demo    runs the example's sweep on this machine
# make test    runs the tests
# make lint    runs ruff and mypy
# make bench   measures hsm beside Hydra's other launchers, and its engine alone
# make clean   removes the environment and what the tools left
#
# Each makes the environment it needs in .venv. Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
PIP_INSTALL := $(VENV)/bin/python -m pip install -qq --disable-pip-version-check
METADATA := setup.py pyproject.toml hsm_core/__init__.py

# Programs that the tests call, each with the Debian package it is in.
TEST_PROGRAMS := git:git faketime:faketime sshd:openssh-server ssh:openssh-client rsync:rsync ip:iproute2 fish:fish zsh:zsh \
  tcsh:tcsh useradd:passwd setpriv:util-linux munged:munge slurmctld:slurm-wlm slurmdbd:slurmdbd mariadbd:mariadb-server
# With this in place packages don't start their daemons (invoke-rc.d(8)): the tests start daemons of their own.
POLICY := /usr/sbin/policy-rc.d

.PHONY: demo test lint bench clean environment programs

demo: $(VENV)/installed-demo
	@cd example_app && ../$(VENV)/bin/hsm run --config sweep.yaml
	@cd example_app && sweep=$$(ls -td sweeps/outputs/sweep_* | head -n 1) && \
	  echo && echo "The results are in example_app/$$sweep. The best task:" && \
	  ../$(VENV)/bin/hsm results "$$sweep" --best max

test: programs $(VENV)/installed-test
	@$(VENV)/bin/python -m pytest --numprocesses auto --dist worksteal

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(VENV)/installed-bench
	@$(VENV)/bin/python benchmarks/local.py --tasks 100
	@$(VENV)/bin/python benchmarks/local.py --tasks 1000 --rounds 1 --way joblib --way "hsm, reuse"
	@$(VENV)/bin/python benchmarks/local.py --tasks 100 --imports 1 --way joblib --way "hsm, reuse"
	@$(VENV)/bin/python benchmarks/engine.py

clean:
	rm -rf $(VENV) build dist hydra_hsm.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

environment: $(VENV)/made

# The stamps are written last, so that an interrupted step is done again.
$(VENV)/made:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "hsm: there is no '$(PYTHON)' here. Install Python 3.10 or newer, or name yours: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "hsm: '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1); Python 3.10 or newer is needed. Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Making the environment $(VENV)"
	@if "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then "$(PYTHON)" -m venv --clear "$(VENV)"; \
	elif command -v virtualenv >/dev/null; then virtualenv --quiet --clear --python "$(PYTHON)" "$(VENV)"; \
	else echo "hsm: '$(PYTHON)' can't make environments, its modules venv and ensurepip are missing." \
	  "On Debian and Ubuntu: sudo apt-get install python$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" >&2; exit 1; fi
	@touch $@

$(VENV)/installed-demo: EXTRAS := example
$(VENV)/installed-test: EXTRAS := example,optuna,test
$(VENV)/installed-bench: EXTRAS := bench
$(VENV)/installed-demo $(VENV)/installed-test $(VENV)/installed-bench: $(VENV)/made $(METADATA)
	@echo "Installing hsm and what it needs ($(EXTRAS))"
	@$(PIP_INSTALL) --editable '.[$(EXTRAS)]' || { \
	  echo "hsm: pip could not install what is needed; its message is above. Is a package index within reach?" >&2; exit 1; }
	@touch $@

programs:
	@missing=; for pair in $(TEST_PROGRAMS); do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair#*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing$$missing"; \
	  if [ ! -e $(POLICY) ]; then \
	    trap 'rm -f $(POLICY)' EXIT; trap 'exit 1' HUP INT TERM; \
	    printf '#!/bin/sh\nexit 101\n' >$(POLICY) && chmod 755 $(POLICY); fi; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $$missing </dev/null >/dev/null || { \
	    echo "hsm: apt-get could not install$$missing, which the tests need; its message is above." >&2; exit 1; }; \
	else echo "hsm: the tests need system packages that are not installed. On Debian and Ubuntu: sudo apt-get install$$missing" >&2; exit 1; fi
