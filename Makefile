# Two commands for users: `make demo` and `make test`. The rest is for developers.
#
# PIP_FLAGS is passed to pip, for example to prefer the CPU build of torch from another index.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
PIP_FLAGS ?=
DEMO ?= demo
TRITON ?= .triton
MLSERVER ?= .mlserver
KSERVE ?= .kserve
PTYCHODUS ?= .ptychodus
LIVE ?= .live
PTYCHI ?= .ptychi
REPOSITORY ?= repo
BUNDLE ?= build/bundle
EXTRAS ?=
ALSO ?=
# Processes that run tests, each with one thread; a worker needs about 2.5 GB.
JOBS ?= 2

export TF_CPP_MIN_LOG_LEVEL ?= 2
# Containers often set it; then every process compiles torch or TensorFlow again, for about ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo bench bench-live bench-scale regimes exporters test hostile licences coverage package bundle resolve test-triton serve-triton test-mlserver test-kserve test-ptychodus test-slurm test-live \
	lint types docs serve-docs install clean

demo: $(STAMP)  ## simulate, train four networks, export them, evaluate them: a report in demo/
	$(BIN)/ptychonnx study lines --architectures cnn,fno,hybrid,baseline --out $(DEMO)

# The ratios of the whole pipeline go into the same file, if they were measured.
PIPELINE := benchmarks/results/end_to_end.json

bench: $(STAMP)  ## speed of the networks of the demo against their frameworks: benchmarks/results/bench.json
	$(BIN)/ptychonnx bench $(wildcard $(DEMO)/models/*.onnx) $(addprefix --run ,$(wildcard $(DEMO)/runs/*)) \
		--judge-on $(DEMO)/data/test.npz $(if $(wildcard $(PIPELINE)),--pipeline $(PIPELINE)) --json benchmarks/results/bench.json

# Further artifacts for bench-live, of other sizes for example.
LIVE_NETWORKS ?= zoo:any_64 zoo:any_128

bench-live: $(STAMP)  ## rate, latency and memory of a live reconstruction: benchmarks/results/live.json
	$(BIN)/python -m benchmarks.live zoo:pinn_hybrid $(LIVE_NETWORKS) --out benchmarks/results/live.json

bench-scale: $(STAMP)  ## a scan of 262,144 patterns in parts, a night with faults, a cluster's faults: benchmarks/results/scale.json
	$(BIN)/python -m benchmarks.scale

regimes: $(STAMP) $(PTYCHI)/installed  ## when a network pays: kinds of scan and seconds, for hours; continues where it stopped
	$(BIN)/python -m benchmarks.regimes --out docs/results/regimes.json
	$(BIN)/python -m benchmarks.regimes --n 128 --seeds 1 --photons 1e9 --step 12 --step 24 --step 32 --refinement 20 --out docs/results/regimes_128.json
	$(BIN)/python -m benchmarks.regimes --draw docs/images/regimes.png docs/results/regimes.json docs/results/regimes_128.json
	$(BIN)/python -m benchmarks.lsqml $(PTYCHI)/bin/python --out docs/results/lsqml.json

exporters: $(STAMP)  ## our exporter next to others; continues where it stopped: benchmarks/results/exporters.json
	$(BIN)/python -m benchmarks.exporters

test: $(STAMP)  ## all tests, in JOBS processes
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

licences: $(STAMP)  ## the page of the licences of all dependencies: docs/reference/licences.md
	$(BIN)/python docs/scripts/licences.py

hostile: $(STAMP)  ## 1,620 damaged inputs under limits of memory and time, and interrupted writes: benchmarks/results/hostile.json, crashes.json
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile.campaign --all --out benchmarks/results/hostile.json
	rm -f benchmarks/results/crashes.json
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile.crashes --out benchmarks/results/crashes.json
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile.crashes --more --frameworks --out benchmarks/results/crashes.json

coverage: $(STAMP)  ## all tests, and the lines that they ran
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

package: $(STAMP)  ## sdist and wheel: dist/
	$(BIN)/python -m build --no-isolation --outdir dist

# EXTRAS=cuda adds the CUDA libraries, ALSO=nxrt-ep-cuda==0.1.0.dev6 a plugin provider; BUNDLE is a new folder.
bundle: $(STAMP)  ## a folder that installs ptychonnx without internet and checks the GPU: build/bundle/install.sh
	rm -rf build/wheel
	$(BIN)/python -m build --no-isolation --wheel --outdir build/wheel
	$(BIN)/python -m ptychonnx.harness.gpu.bundle build/wheel/*.whl --out $(BUNDLE) --constraints constraints.txt \
		$(addprefix --extra ,$(EXTRAS)) $(addprefix --also ,$(ALSO))

# torch-harmonics has no wheels; mkdocs-material needs Python 3.11.5.
resolve: $(STAMP)  ## whether the dependencies have a common solution for each Python, with all extras; installs nothing
	mkdir -p build
	@for version in 3.11.5 3.12 3.13; do \
		$(BIN)/uv pip compile pyproject.toml --all-extras --constraints constraints.txt --python-version $$version \
			--python-platform linux --only-binary :all: --no-binary torch-harmonics --system-certs --quiet \
			--no-header --no-annotate --output-file build/resolved-$$version.txt || exit 1; \
		echo "Python $$version: $$(wc -l < build/resolved-$$version.txt) packages, in build/resolved-$$version.txt"; \
	done

test-triton: $(STAMP) $(TRITON)/installed  ## networks on a real Triton server, on this machine's loopback
	PTYCHONNX_TRITON=$(abspath $(TRITON)) $(BIN)/python -m pytest -m triton tests/triton tests/guides

serve-triton: $(STAMP) $(TRITON)/installed  ## a Triton server on this machine's loopback for the models in REPOSITORY
	$(BIN)/python -m tests.triton.serve $(TRITON) $(REPOSITORY)

test-mlserver: $(STAMP) $(MLSERVER)/installed  ## networks on MLServer, on this machine's loopback
	PTYCHONNX_MLSERVER=$(abspath $(MLSERVER))/bin/mlserver $(BIN)/python -m pytest -m mlserver tests/export/test_deploy_mlserver.py tests/guides

test-kserve: $(STAMP) $(KSERVE)/installed $(TRITON)/installed  ## KServe's own parts on what `deploy kserve` writes, on this machine's loopback
	PTYCHONNX_KSERVE=$(abspath $(KSERVE)) PTYCHONNX_TRITON=$(abspath $(TRITON)) $(BIN)/python -m pytest -m kserve tests/guides tests/export/test_deploy_kserve.py

test-ptychodus: $(STAMP) $(PTYCHODUS)/installed  ## our reconstructor and file plugins in ptychodus, without a screen; files exchanged with it
	PTYCHONNX_TRAINING_PYTHON=$(abspath $(BIN))/python QT_QPA_PLATFORM=offscreen $(PTYCHODUS)/bin/python -m pytest \
		tests/integrations/test_ptychodus.py tests/runtime/test_products.py tests/runtime/test_formats_ptychodus.py \
		tests/harness/test_ptychodus_folder.py

# apt-get install munge slurmctld slurmd slurm-client
test-slurm: $(STAMP)  ## scripts and workers on a real Slurm, whose daemons run on this machine; as root
	PTYCHONNX_SLURM=1 $(BIN)/python -m pytest -m slurm tests/harness/test_slurm_daemons.py

test-live: $(STAMP) $(LIVE)/installed  ## `live` with simulators of detectors that are not ours, on this machine's loopback
	PTYCHONNX_LIVE=$(abspath $(LIVE)) $(BIN)/python -m pytest -m live tests/harness/test_live_peers.py

lint: $(STAMP)  ## format, style, and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(STAMP)  ## static types
	$(BIN)/mypy

docs: $(STAMP)  ## the documentation as a site in build/site; a broken link or reference fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve-docs: $(STAMP)  ## the documentation on http://127.0.0.1:8000, built again after every change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e ".[all,dev]"
	touch $@

$(TRITON)/installed: tests/triton/requirements.txt tests/triton/assemble.py $(wildcard tests/triton/backends/*/*.py)
	$(PYTHON) -m venv $(TRITON)/venv
	$(TRITON)/venv/bin/python -m pip install --quiet $(PIP_FLAGS) -r tests/triton/requirements.txt
	$(TRITON)/venv/bin/python tests/triton/assemble.py $(TRITON)
	touch $@

$(MLSERVER)/installed: tests/export/mlserver.txt
	$(PYTHON) -m venv $(MLSERVER)
	$(MLSERVER)/bin/python -m pip install --quiet $(PIP_FLAGS) -r tests/export/mlserver.txt
	touch $@

$(KSERVE)/installed: tests/export/kserve.txt
	$(PYTHON) -m venv $(KSERVE)
	$(KSERVE)/bin/python -m pip install --quiet $(PIP_FLAGS) -r tests/export/kserve.txt
	touch $@

# Left out of the constraints: what the dependencies of ptychodus exclude.
$(PTYCHODUS)/installed: tests/integrations/ptychodus.txt constraints.txt pyproject.toml $(wildcard integrations/ptychodus/*.toml integrations/ptychodus/*/*.py)
	$(PYTHON) -m venv $(PTYCHODUS)
	grep -vE '^(importlib-metadata|opentelemetry|packaging|protobuf)' constraints.txt > $(PTYCHODUS)/constraints.txt
	$(PTYCHODUS)/bin/python -m pip install --quiet $(PIP_FLAGS) -c $(PTYCHODUS)/constraints.txt \
		-r tests/integrations/ptychodus.txt -e . ./integrations/ptychodus
	touch $@

$(PTYCHI)/installed: benchmarks/lsqml.txt
	$(PYTHON) -m venv $(PTYCHI)
	$(PTYCHI)/bin/python -m pip install --quiet $(PIP_FLAGS) -r benchmarks/lsqml.txt
	touch $@

$(LIVE)/installed: tests/harness/live_peers.txt
	$(PYTHON) -m venv $(LIVE)
	$(LIVE)/bin/python -m pip install --quiet $(PIP_FLAGS) -r tests/harness/live_peers.txt
	touch $@

clean:
	rm -rf $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache
