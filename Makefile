# Two commands do all the set-up: `make demo` runs the main job, `make test` proves the checkout.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

JUDGED := 20:3,200,001-4,000,000
TRAINED := 20:1,000,001-3,000,000
TUNED := 20:3,000,001-3,200,000
# The first 1,000 and the first 120 records of the judged region.
FIRST := 20:3,200,001-3,304,056
FEWER := 20:3,200,001-3,211,616

.PHONY: help demo test env lint types contracts pytest format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     environment if missing, then the main job on real human sequence (demo/report.html)"
	@echo "make test     environment if missing, then lint, types, import contracts, and every test that needs no GPU"
	@echo "make format   let ruff rewrite the code in the house style"
	@echo "make clean    remove the environment, the demo's output and caches"

# One stamp a set of extras: the demo needs fewer packages than the tests do.
$(VENV)/.demo: pyproject.toml constraints.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[train,plot]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.demo

env: $(VENV)/.dev

demo: $(VENV)/.demo
	@rm -rf demo && mkdir demo
	genossm genome build data/chr20_1-4Mb.fa.gz -o demo/chr20.zarr
	genossm train --config configs/train/demo.yaml
	genossm evaluate bases -m demo/run/model -f demo/chr20.zarr --train $(TRAINED) --validation $(TUNED) --test $(JUDGED) -o demo/bases.json
	genossm score -f demo/chr20.zarr -m human-causal-2m -r $(FIRST) --context 131072 data/1000g_chr20_1-4Mb.vcf.gz -o demo/scored.vcf.gz
	genossm evaluate variants demo/scored.vcf.gz -f demo/chr20.zarr --region $(FIRST) --markov-train $(TRAINED) -o demo/variants.json
	genossm train --config configs/train/demo_masked.yaml
	genossm evaluate bases -m demo/masked_run/model -f demo/chr20.zarr --train $(TRAINED) --validation $(TUNED) --test $(JUDGED) -o demo/masked_bases.json
	genossm score -f demo/chr20.zarr -m human-bidir-2m -r $(FEWER) --context 1024 data/1000g_chr20_1-4Mb.vcf.gz -o demo/masked_scored.vcf.gz
	genossm evaluate variants demo/masked_scored.vcf.gz -f demo/chr20.zarr --region $(FEWER) --markov-train $(TRAINED) -o demo/masked_variants.json
	genossm report --run demo/run --bases demo/bases.json --variants demo/variants.json --run demo/masked_run --bases demo/masked_bases.json --variants demo/masked_variants.json -o demo/report.html

test: env lint types contracts pytest

lint:
	ruff format --check .
	ruff check .

types:
	pyright

contracts:
	lint-imports

# Two processes of one thread each: two that use all cores would wait for each other's.
pytest:
	OMP_NUM_THREADS=1 python -m pytest tests --ignore=tests/gpu -n 2 --dist loadfile

format:
	ruff format .
	ruff check --fix .

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
