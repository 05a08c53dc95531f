# make reproduce   set up, then the whole embedded reproduction
# make photos DATA=dir   the grid on photographs; what its benchmarks lack in dir is downloaded first
# make test        set up, then the tests: lint, floors, units, whole runs and batches, notebooks
# make test-all    the same, and repeated kills of further methods and of a full-size model
# make figures     redraw the figures from figures/data
# make notebooks   run the notebooks again with their defaults, in place
# make lab         JupyterLab on the notebooks
# make check-slurm     a grid on a SLURM of one node, a job of it killed (as root: Debian's slurm-wlm is installed)
# make check-browser   each notebook in JupyterLab in a headless browser (as root: Debian's chromium is installed)
# The first of these that is new enough; PYTHON=… names another.
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$each -c '$(NEW_ENOUGH)' 2> /dev/null && echo $$each && break; done)
NEW_ENOUGH = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
VENV ?= .venv
# nproc would give the number of OpenMP's threads where a user has set it.
CORES ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu)
CONFIG ?= configs/default.yaml
BIN = $(VENV)/bin
# The notebooks' kernels and snakemake's shells must find the environment's programs.
export PATH := $(if $(filter /%,$(BIN)),,$(CURDIR)/)$(BIN):$(PATH)
export JUPYTER_PLATFORM_DIRS = 1
# Where the home cannot be written, programs keep caches and sockets in a folder of their own.
ifneq ($(shell made=`mktemp -d "$$HOME/.cbbt.XXXXXX" 2> /dev/null` && rmdir "$$made" && echo yes),yes)
export XDG_CACHE_HOME := $(or $(XDG_CACHE_HOME),$(shell mktemp -d))
export JUPYTER_RUNTIME_DIR := $(or $(JUPYTER_RUNTIME_DIR),$(XDG_CACHE_HOME)/jupyter)
endif
# Packages are not compiled when they are installed (below): each process would do it anew if none could keep the outcome.
unexport PYTHONDONTWRITEBYTECODE
# Waiting threads must not spin where several processes share the cores.
export OMP_WAIT_POLICY = passive

.PHONY: reproduce photos test test-all figures notebooks lab check-slurm check-browser setup

setup: $(VENV)/ready

# An environment of another interpreter, or one that was left half-made, is made anew. Bytecode is
# not compiled for all packages beforehand: that takes longer than all that is imported ever does.
$(VENV)/ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python found that is 3.11 or newer: install one, or name it by PYTHON=…"; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is `$(PYTHON) --version`: it must be 3.11 or newer, and have venv"; exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 && test "`$(BIN)/python -V`" = "`$(PYTHON) -V`" || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[test]"
	touch $@

photos: CONFIG = configs/photos.yaml
photos: DOWNLOAD = --download $(if $(DATA),,$(error name the folder of the images: make photos DATA=dir))
reproduce photos: setup
	python -m cbbt.runs.batch $(DOWNLOAD) snakemake --cores $(CORES) --configfile $(CONFIG) $(if $(DATA),--config 'data_root=$(DATA)') \
		--rerun-triggers mtime params input --rerun-incomplete --keep-going --quiet rules

# One process for each core, each with one thread; a file or notebook stays in one process. Progress bars
# move seldom: nbval reads a kernel's messages when a cell has ended, and of more than a thousand some may be lost.
test test-all: setup
	ruff check --quiet .
	ruff format --check --quiet .
	lint-imports --verbose --no-cache > /dev/null || lint-imports --no-cache
	OMP_NUM_THREADS=1 TQDM_MININTERVAL=2 python -m pytest --quiet --numprocesses $(CORES) --dist loadfile --nbval-lax --nbval-current-env \
		--nbval-sanitize-with tests/nbval_sanitize.cfg $(if $(filter test,$@),-m "not soak") tests notebooks

figures: setup
	mkdir -p results
	for name in 04_figures A2_collaboration A3_fewer_queries A5_ablations A7_photographs; do \
		papermill notebooks/$$name.ipynb results/$$name.ipynb --log-level ERROR --no-progress-bar || exit 1; done
	papermill notebooks/07_generalisation.ipynb results/07_generalisation.ipynb --log-level ERROR --no-progress-bar
	papermill notebooks/05_peers.ipynb results/05_peers.ipynb -y "methods: []" --log-level ERROR --no-progress-bar
	papermill notebooks/A4_speed.ipynb results/A4_speed.ipynb -p measure False --log-level ERROR --no-progress-bar

# Run the notebooks again with their defaults, in place, as they are committed: notebook 4 draws what notebook 2b has measured.
notebooks: RUN = jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False --log-level ERROR
notebooks: setup
	$(RUN) notebooks/0[0123]*.ipynb
	cp results/explore/tables/gradient_*.csv figures/data
	$(RUN) notebooks/0[457]*.ipynb notebooks/A*.ipynb
	python -c "import sys; from cbbt.notebook import remove_bars; remove_bars(*sys.argv[1:])" notebooks/*.ipynb

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
