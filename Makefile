# `make demo` trains a VAE on real digits; `make test` is what CI runs.
# Another Python: `make test PYTHON=python3.13`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO := run/demo

.PHONY: demo test lint slow install

demo: $(VENV)/.installed-data
	rm -rf $(DEMO)
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python examples/vae.py --dataset=mnist_5k \
		--binarize=static --epochs=60 --output_dir=$(DEMO)
	@echo "Its samples after the last epoch, and the SavedModel:"
	@find $(DEMO) -name samples.png -o -name saved_model.pb

test: lint
	$(BIN)/python -m pytest -n auto $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

slow: install
	$(BIN)/python -m pytest -m slow $(ARGS)

install: $(VENV)/.installed-test

# One stamp per extra, so that pip runs again only when setup.cfg changes. Python
# compiles what it imports; pip would compile all of TensorFlow, for a minute.
$(VENV)/.installed-%: setup.cfg | $(BIN)/python
	$(PIP) install --no-compile --editable '.[$*]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
