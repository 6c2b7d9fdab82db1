# make setup [HASHES=1] | demo | test | experiments | findings | clean. Everything is made in .venv/ (VENV=... names another);
# nothing outside this folder is touched but missing system packages (setup.sh; Chromium for experiments), which are
# installed where that is permitted.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
WORKERS := 2
STAMP := $(VENV)/.ready
UNDERSTUDY := $(VENV)/bin/understudy
DEMO := out/demo

.PHONY: help setup demo test types experiments findings chromium readme-pictures lock sbom audit site clean

help:
	@echo "make setup        virtual environment with everything installed, in .venv/"
	@echo "                  HASHES=1: only files whose hashes stand in requirements.txt; torch as the index has it"
	@echo "make demo         demonstrate, train and judge robosuite Lift, with a report; under 10 minutes on 2 cores"
	@echo "make test         the tests; WORKERS=2 processes"
	@echo "make types        the types, by mypy; which files, pyproject.toml says"
	@echo "make experiments  the tests marked slow, and the reports in Chromium, installed where permitted"
	@echo "make findings     what other libraries really do, each tried in a temporary folder; downloads about 5 GB"
	@echo "make lock         requirements.txt, the pins of constraints.txt with hashes, anew"
	@echo "make sbom         a bill of materials of .venv/ in CycloneDX, out/sbom.json"
	@echo "make audit        known vulnerabilities of the versions in requirements.txt, out/audit.json; asks pypi.org"
	@echo "make site         the documentation as a site, out/site/index.html; fails on a link that leads nowhere"
	@echo "make readme-pictures  the picture of README.md, from the record of Lift that its table cites"
	@echo "make clean        remove .venv/, .venv-3.*/, out/ and caches; runs/ stays"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt requirements.txt setup.sh
	bash setup.sh $(VENV)
	@touch $@

# Most tests share the cores, WORKERS processes of them; those against the wall clock come one at a time behind, the
# pages beside them. Pytest ends with 5 where one of the two has nothing to run, with 2 where it was interrupted.
test: $(STAMP)
	@status=0; \
	for chosen in "not paced" paced; do \
	  [ "$$chosen" = paced ] && workers= || workers="-n $(WORKERS) --dist loadfile"; \
	  $(VENV)/bin/pytest -m "not slow and $$chosen" $$workers --durations=15; \
	  result=$$?; case $$result in 0|5) ;; 2) exit 2 ;; *) status=$$result ;; esac; \
	done; exit $$status

types: $(STAMP)
	@mkdir -p $(VENV)/types && ln -sfn "$(CURDIR)" $(VENV)/types/understudy
	MYPYPATH=$(VENV)/types $(VENV)/bin/mypy

experiments: $(STAMP) chromium
	$(VENV)/bin/pytest tests/eval/evaluate/test_report_browser.py tests/eval/compare/test_page.py
	$(VENV)/bin/pytest -m slow --durations=15

# No set-up: they run without understudy. One folder of environments for all, gone at the end.
findings:
	@FINDINGS_VENVS=$$(mktemp -d); export FINDINGS_VENVS; trap 'rm -rf "$$FINDINGS_VENVS"' EXIT; summary=; failed=0; \
	for script in findings/*.sh; do \
	  name=$$(basename $$script .sh); [ $$name = common ] && continue; \
	  echo "== $$name"; word="as described"; \
	  bash $$script || { word="CHANGED, or could not run: see above"; failed=1; }; \
	  echo; summary="$$summary$$(printf '%-28s %s' $$name "$$word")\n"; \
	done; \
	printf "$$summary"; exit $$failed

lock:
	env -u UV_FIND_LINKS $(VENV)/bin/uv pip compile pyproject.toml --extra all --group setup --universal \
	  --python-version 3.11 -c constraints.txt --generate-hashes --no-header --no-annotate --quiet -o requirements.txt

sbom: $(STAMP)
	@mkdir -p out
	$(VENV)/bin/uv tool run --from "cyclonedx-bom>=7,<8" cyclonedx-py environment $(VENV)/bin/python \
	  --pyproject pyproject.toml --output-reproducible -o out/sbom.json
	@echo "out/sbom.json"

audit: $(STAMP)
	@mkdir -p out
	$(VENV)/bin/uv tool run --from "pip-audit>=2.9,<3" pip-audit --requirement requirements.txt --require-hashes \
	  --disable-pip --progress-spinner off --format json --output out/audit.json
	@echo "out/audit.json"

site: $(STAMP)
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --group site -c constraints.txt
	$(VENV)/bin/python docs/site/build.py out/site

chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	echo "installing Chromium, which the tests of the reports open"; \
	{ $$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	echo "may not install Chromium, so the tests of the reports are skipped. Ask for: sudo apt-get install chromium" >&2

demo: $(STAMP)
	rm -rf $(DEMO)
	$(UNDERSTUDY) demos lift --episodes 60 --action_noise 0.1 --workers 2 --out $(DEMO)/data
	$(UNDERSTUDY) train configs/train/lift.yaml --data $(DEMO)/data --out $(DEMO)/run
	$(UNDERSTUDY) eval configs/eval/lift.yaml --policy $(DEMO)/run --episodes 50 --name "Lift from 60 demonstrations" \
	  --out $(DEMO)/eval
	@echo
	@echo "Report: $(CURDIR)/$(DEMO)/eval/report.html"
	@echo "Next:   $(UNDERSTUDY) inspect $(DEMO)/data                        what the policy learned from"
	@echo "        $(UNDERSTUDY) eval configs/eval/lift.yaml --policy $(DEMO)/run --episodes 100 --env_seed 2000 --out out/lift-again"
	@echo "        $(UNDERSTUDY) list                                        all policies, worlds, experts"

readme-pictures: $(STAMP) chromium
	$(UNDERSTUDY) study readme_pictures --record eval/records/lift/diffusion --out docs/pictures/overview.webp

clean:
	rm -rf .venv .venv-3.* out build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
