# make run        all notebooks, in order, on Soundstage, into runs/soundstage (go on: run again);
#                 ARGS="--studies" adds the lab notes
# make test       everything that is checked: ruff, unit tests, every cell of every lesson
# make lab        the notebooks in JupyterLab
# make notebooks  for authors: write NN_name.ipynb from NN_name.py and execute it (NB="00 06")
# make workshop   learner's copies with blank exercises, and a page for the teacher
# make doctor     what of this machine is ready, and what to do about the rest
# make bench      how long training takes here, at the size of XD-Violence
# make lint       ruff alone
# make clean      deletes .venv and runs/, with all trainings, reports and learner's copies in it
#
# Each makes .venv first if it is not there or pyproject.toml is newer.
# PYTHON=/path/to/python3.12 chooses the Python; ARGS="--only 06" reaches `make run`, ARGS="-k fusion"
# reaches pytest; WORKERS=4 runs tests in so many processes.

WORKERS ?= 2
PY := .venv/bin/python
STAMP := .venv/.installed

# what a user's shell may carry over that would reach into the environment made here
unexport PYTHONPATH PYTHONHOME JUPYTER_PATH MPLBACKEND
export JUPYTER_PREFER_ENV_PATH := 1

# an environment whose Python has since gone is made anew
ifneq ($(wildcard $(STAMP)),)
ifneq ($(shell $(PY) -c 'print(1)' 2>/dev/null),1)
$(shell rm -f $(STAMP))
endif
endif

.PHONY: run test lint lab notebooks workshop doctor bench clean
run: $(STAMP)
	$(PY) -m avadclip_lite run $(ARGS)

test: lint
	$(PY) -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder \
	    --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-kernel-name python3 \
	    notebooks tests $(ARGS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

lab: $(STAMP)
	$(PY) -m jupyter lab --notebook-dir=notebooks

notebooks: $(STAMP)
	$(PY) tools/authoring.py $(NB)

workshop: $(STAMP)
	$(PY) tools/workshop.py $(NB)

doctor: $(STAMP)
	$(PY) -m avadclip_lite doctor

bench: $(STAMP)
	$(PY) -m avadclip_lite bench $(ARGS)

clean:
	rm -rf .venv runs

$(STAMP): pyproject.toml
	sh tools/make_venv.sh
