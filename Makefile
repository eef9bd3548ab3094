# `make help` lists the targets. The environment is .venv, or the conda env "denoiser" if active.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test test-browser test-light test-optional test-peers test-live test-distributed test-site lab notebooks site results peers speed recognition specialist design phonemes ablation adversarial adapting ladder report train-waveform train-spectrogram clean

ifeq ($(CONDA_DEFAULT_ENV),denoiser)
BIN := $(CONDA_PREFIX)/bin
READY := $(BIN)/python
else
BIN := .venv/bin
READY := .venv/.ready
endif

# $(call stage,NAME,COMMAND): run a command and print how long it took
stage = @echo "== $(1)"; start=$$SECONDS; $(2); code=$$?; \
	echo "== $(1): $$((SECONDS - start)) s"; exit $$code

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: $(READY) ## the main job: add noise, denoise by both methods, write clips, figure and table
	$(BIN)/python -m helpers run

test: $(READY) ## lint, order of imports, unit tests, and every notebook in quick mode
	$(call stage,ruff,$(BIN)/ruff check . && $(BIN)/ruff format --check .)
	$(call stage,imports,$(BIN)/lint-imports --no-logo)
	$(call stage,unit tests,$(BIN)/python -m pytest -n 2 --dist loadfile \
		$(filter-out tests/test_cluster.py,$(wildcard tests/test_*.py)))
	$(call stage,notebooks,DENOISER_QUICK=1 $(BIN)/python -m pytest -n 2 --dist loadscope -p tests.patient_kernels \
		--nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
		--nbval-cell-timeout 600 notebooks)

test-browser: $(READY) ## the widgets in a real JupyterLab in headless Chromium (Debian: apt install chromium)
	$(BIN)/python -m pip install -q -r requirements-browser.txt
	$(call stage,browser,$(BIN)/python -m pytest -s tests/browser)

test-light: $(READY) ## the light part alone, in an empty environment: half a minute and the network
	$(call stage,light,$(BIN)/python -m pytest tests/light)

test-optional: $(READY) ## the recognisers and file formats that `make test` leaves out: installs and tests them, two minutes
	$(BIN)/python -m pip install -q -r requirements-asr.txt -r requirements-formats.txt
	$(call stage,optional,DENOISER_NO_SKIPS=1 $(BIN)/python -m pytest -n 2 --dist loadfile \
		tests/test_recognition.py tests/test_reading.py)

test-peers: .venv-peers/.ready ## the denoisers that people install, in .venv-peers: a minute and the network
	$(call stage,peers,DENOISER_NO_SKIPS=1 .venv-peers/bin/python -m pytest tests/test_evaluate.py \
		-k "peer or hush")

test-live: $(READY) ## `denoiser live` between two sound cards of PulseAudio, and its latency: a minute
	@command -v pulseaudio > /dev/null && command -v parec > /dev/null || { echo \
		"PulseAudio is needed (Debian: apt install pulseaudio pulseaudio-utils libasound2-plugins libportaudio2)" >&2; exit 1; }
	$(BIN)/python -m pip install -q -r requirements-live.txt
	$(call stage,live,$(BIN)/python -m pytest -s tests/live_sinks)

test-distributed: .venv-distributed/.ready ## folders and trainings by two processes, some of them killed, three minutes
	$(call stage,distributed,.venv-distributed/bin/python -m pytest -n 2 --dist loadfile tests/test_cluster.py tests/test_workers.py)

test-site: site ## the site in headless Chromium: players, search, solutions, links, barriers
	$(BIN)/python -m pip install -q -r requirements-browser.txt
	$(call stage,site,$(BIN)/python -m pytest -s tests/browser_site)

lab: $(READY) ## open JupyterLab on the first notebook
	$(BIN)/jupyter lab notebooks/01_dataset.ipynb

notebooks: $(READY) ## execute every notebook in full and keep the outputs, without audio
	$(BIN)/python -m experiments notebooks

site: $(READY) .venv-site/.ready ## the course as pages with sound, into output/site/html; runs what changed
	$(BIN)/python -m experiments site
	.venv-site/bin/sphinx-build -q -W --keep-going output/site/source output/site/html
	.venv-site/bin/jupyter nbconvert --log-level WARN --to slides --template slides \
		--TemplateExporter.extra_template_basedirs experiments/site/source --SlidesExporter.reveal_theme course \
		--SlidesExporter.reveal_url_prefix ../_static/reveal \
		--output-dir output/site/html/slides output/site/slides/*.ipynb
	@echo "== site: open output/site/html/index.html"

results: $(READY) ## the test protocol, resumable: every condition and system into data/results
	$(BIN)/python -m experiments evaluate --out data/results/test
	$(BIN)/python -m experiments bright --out data/results/bright

peers: .venv-peers/.ready ## the same for the denoisers that people install, in .venv-peers
	.venv-peers/bin/python -m experiments evaluate --peers --out data/results/peers

speed: $(READY) .venv-peers/.ready ## CPU speed of every system in one run, a minute; let the machine rest otherwise
	$(BIN)/python -m experiments speed --out data/results/speed
	.venv-peers/bin/python -m experiments speed --peers --out data/results/speed

recognition: $(READY) .venv-peers/.ready ## errors of four recognisers, resumable, into data/results
	$(BIN)/python -m pip install -q -r requirements-asr.txt
	$(BIN)/python -m experiments recognise --validation --out data/results/recognition_validation
	$(BIN)/python -m experiments recognise --out data/results/recognition
	$(BIN)/python -m experiments real --out data/results/real
	.venv-peers/bin/python -m experiments recognise --peers --out data/results/recognition_peers

specialist: $(READY) ## train on the held-out noise alone, to see what knowing it would gain (chapter 06)
	$(BIN)/python -m pip install -q -r requirements-asr.txt
	$(BIN)/python -m experiments train specialist
	$(BIN)/python -m experiments recognise --specialist data/runs/specialist --out data/results/recognition

design: $(READY) ## train a peer's network and ours on the same noise, resumable, and score them
	$(BIN)/python -m experiments train peer_architecture
	$(BIN)/python -m experiments train fresh
	$(BIN)/python -m experiments design --out data/results/design

phonemes: $(READY) ## train a phoneme recogniser on clean, noisy and denoised speech, resumable
	$(BIN)/python -m experiments phonemes --out data/results/phonemes

ablation: $(READY) ## train the steps from a picture to a mask, resumable, into data/results
	$(BIN)/python -m experiments ablate --out data/results/ablation

ladder: $(READY) ## train a small network with and without clean targets, resumable, into data/results
	$(BIN)/python -m experiments ladder --out data/results/ladder

adapting: $(READY) ## adapt two models to noisy clips alone, resumable, into data/results
	$(BIN)/python -m experiments adapt-domains --out data/results/adapting

adversarial: $(READY) ## train with discriminators and score what that gives and costs, resumable
	$(BIN)/python -m pip install -q -r requirements-asr.txt
	$(BIN)/python -m experiments adversarial --out data/results/adversarial

report: $(READY) ## write the table of the README and the page of all results
	$(BIN)/python -m experiments report

train-waveform: $(READY) ## train the waveform model by its plan, or go on where it stopped
	$(BIN)/python -m experiments train waveform
	$(BIN)/python -m experiments export

train-spectrogram: $(READY) ## train the spectrogram model by its plan, or go on where it stopped
	$(BIN)/python -m experiments train spectrogram
	$(BIN)/python -m experiments export

clean: ## remove .venv, .venv-*, output/ and caches; corpora, weights and training runs stay
	rm -rf .venv .venv-* output data/cache .pytest_cache .hypothesis .ruff_cache *.egg-info
	find helpers experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ready: requirements.txt pyproject.toml
	@command -v cc > /dev/null || command -v gcc > /dev/null || { echo \
		"No C compiler found, and PESQ is built from source: install gcc (Debian: apt install build-essential python3-dev; macOS: xcode-select --install)" >&2; exit 1; }
	@python=$$(for p in python3.11 python3.12 python3; do \
		$$p -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2> /dev/null \
		&& echo $$p && break; done); \
	test -n "$$python" || { echo "Python 3.11 or 3.12 is needed; install one of them" >&2; exit 1; }; \
	echo "== environment: .venv with $$($$python --version), a few minutes"; \
	$$python -m venv .venv && .venv/bin/python -m pip install --upgrade pip > /dev/null \
		&& .venv/bin/python -m pip install -r requirements.txt
	@touch $@

.venv-distributed/.ready: requirements-distributed.txt $(READY)
	@echo "== JAX and Dask in .venv-distributed, beside $(BIN)"
	@$(BIN)/python -m venv .venv-distributed
	@$(BIN)/python -c "import site; print(site.getsitepackages()[0])" \
		> "$$(.venv-distributed/bin/python -c 'import site; print(site.getsitepackages()[0])')/beside.pth"
	$(call stage,pip,.venv-distributed/bin/python -m pip install -q -r requirements-distributed.txt)
	@touch $@

.venv-peers/.ready: requirements-peers.txt $(READY)
	$(BIN)/python -m venv .venv-peers
	.venv-peers/bin/python -m pip install --no-deps -r requirements-peers.txt
	@touch $@

.venv-site/.ready: requirements-site.txt $(READY)
	$(BIN)/python -m venv .venv-site
	.venv-site/bin/python -m pip install -q -r requirements-site.txt
	@touch $@
