# make reproduce   set up, then the whole embedded reproduction
# make test        set up, then every test
# make figures     redraw the figures from figures/data
# make notebooks   run the notebooks again with their defaults, in place
# make lab         JupyterLab on the notebooks
# make check-slurm     a grid on a SLURM of one node, a job of it killed (as root: Debian's slurm-wlm is installed)
# make check-browser   each notebook in JupyterLab in a headless browser (as root: Debian's chromium is installed)
PYTHON ?= python3
VENV ?= .venv
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
CONFIG ?= configs/default.yaml
BIN = $(VENV)/bin
# The notebooks' kernels and snakemake's shells must find the environment's programs.
export PATH := $(abspath $(BIN)):$(PATH)
export JUPYTER_PLATFORM_DIRS = 1
# Waiting threads must not spin where several processes share the cores.
export OMP_WAIT_POLICY = passive

.PHONY: reproduce test figures notebooks lab check-slurm check-browser setup

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

reproduce: setup
	snakemake --cores $(CORES) --configfile $(CONFIG) --rerun-triggers mtime params input --rerun-incomplete --keep-going --quiet rules; \
		status=$$?; python -m cbbt.runs.report $(CONFIG) && exit $$status

test: setup
	python -m pytest --quiet tests
	python -m pytest --quiet --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks

figures: setup
	mkdir -p results
	for name in 04_figures A2_collaboration A3_fewer_queries A5_ablations; do \
		papermill notebooks/$$name.ipynb results/$$name.ipynb --log-level ERROR --no-progress-bar || exit 1; done
	papermill notebooks/05_peers.ipynb results/05_peers.ipynb -y "methods: []" --log-level ERROR --no-progress-bar
	papermill notebooks/A4_speed.ipynb results/A4_speed.ipynb -p measure False --log-level ERROR --no-progress-bar

# Run the notebooks again with their defaults, in place, as they are committed.
notebooks: setup
	jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False --log-level ERROR notebooks/0*.ipynb notebooks/A[2345]*.ipynb

lab: setup
	jupyter lab notebooks

check-slurm: setup
	command -v slurmctld munged > /dev/null || apt-get install --yes --quiet slurm-wlm munge
	python -m pip install --quiet snakemake-executor-plugin-slurm
	python -m pytest tests/test_slurm.py

check-browser: setup
	command -v chromedriver > /dev/null || apt-get install --yes --quiet chromium chromium-driver
	python -m pip install --quiet selenium
	python tests/check_jupyterlab.py
