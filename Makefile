# Two commands: `make demo` and `make test`. Everything is installed into .venv from PyPI with plain pip and full pins.
PYTHON ?= python3
DATA ?= ../shared/data
MODELS ?= ../shared/models
VENV := .venv
BIN := $(VENV)/bin
# Two processes for two cores; which tests share one, and which come first, tests/conftest.py says.
SPREAD := -n 2 --dist loadgroup --no-loadscope-reorder

# No telemetry, no hub, one thread a test process: two OpenMP threads beside another busy process spin.
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_OFFLINE ?= 1
export HF_DATASETS_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM := false
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false

.PHONY: drill-monitor drill-week bench-planted help install demo demo-clean test test-slow lint bench bench-data bench-data-full bench-near bench-who-has bench-real bench-train bench-plan bench-continual bench-tuners bench-rlhf bench-evaluate drill-kill drill-memory drill-schedule drill-ticks drill-gate drill-flips drill-people drill-race drill-kill-release drill-swap drill-chaos bench-flow bench-audit bench-release bench-serve drill-ray bench-ray doctor check drill-gc drill-stack clean
help:
	@echo "make demo        the main job, end to end, on a small model that ships"
	@echo "make test        lint, types, import contracts, tests"
	@echo "make test-slow   what takes too long for that: all drills, and a few long tests (hours)"
	@echo "make demo-clean  forget the demo: its state, its runs' tags, its inbox"
	@echo "make bench       timings of the demo, the no-change run, --help, and data (minutes)"
	@echo "make bench-data  data in: speed and memory beside the chain a user would build; bench-data-full adds 10M rows"
	@echo "make bench-near  near duplicates: recall, precision and speed beside exact comparison and datasketch (minutes)"
	@echo "make bench-who-has  look-ups among ten million records (minutes)"
	@echo "make bench-real DATA=FOLDER  leaks, drift, personal data, label errors and native formats on public sets (long)"
	@echo "make bench-train  tokens a second, memory and loss beside TRL's trainers and the plain Trainer (long)"
	@echo "make bench-plan  memory and seconds that tuneline plan predicts, beside what came (minutes)"
	@echo "make bench-continual, bench-tuners, bench-rlhf DATA=FOLDER  forgetting; every tuner on one task; reward and divergence (long)"
	@echo "make bench-evaluate DATA=FOLDER MODELS=FOLDER  suites beside lm-evaluation-harness: speed, and equality to the item (long)"
	@echo "make drill-memory  a capped process that would have died ends with the same curve (minutes)"
	@echo "make drill-kill  SIGKILL in mid-training at seeded points: same adapter bytes as without (minutes)"
	@echo "make drill-schedule  a cron of each minute: the first tick retrains, the second finds nothing (minutes)"
	@echo "make drill-ticks  a thousand ticks under kills, stops, wrong clocks and restarts: one candidate for each with fresh data (an hour)"
	@echo "make drill-flips  every flipped byte of a release, every other harm to it and to its ledger, is found and named (minutes)"
	@echo "make drill-people  waits for people: vetoes, ends, signed decisions, a server and a worker killed meanwhile (minutes)"
	@echo "make drill-race  ten thousand moves of eight processes, on SQLite and a PostgreSQL that is killed: one winner each (minutes)"
	@echo "make drill-kill-release  SIGKILL at every change of the disk of register, promote, rollback: always a whole release (minutes)"
	@echo "make bench-release  how long promotions and questions to a ledger of 100,000 events take (minutes)"
	@echo "make bench-audit  audit verify beside sha256sum on the same files (minutes)"
	@echo "make drill-gate  bad candidates are refused for the right reason, good ones pass (half an hour)"
	@echo "make drill-monitor DATA=FOLDER  another assistant's questions are told as drift, fresh ones of the same kind are not (minutes)"
	@echo "make drill-week  a scripted week: traffic, feedback, retrain, gate, approval, promotion (minutes)"
	@echo "make bench-planted DATA=FOLDER  triggers planted in public sets: how many are found, how often in vain (minutes)"
	@echo "make drill-swap  a hundred promotions and rollbacks under 20,000 streamed requests: none lost, none by another (minutes)"
	@echo "make drill-chaos  the whole flow killed at two hundred changes of the disk, a server answering beside it (half an hour)"
	@echo "make bench-flow  what the flow costs over its steps, beside Metaflow (minutes)"
	@echo "make bench-serve serving beside a plain FastAPI app; how soon a swap shows (minutes)"
	@echo "make check       known vulnerabilities of all pins, licences, a bill of materials in sbom.cdx.json (asks PyPI)"
	@echo "make drill-gc    gc killed a dozen times harms no release; make drill-stack  the stack up, used, down, nothing left (minutes)"
	@echo "make drill-ray  two Ray nodes, one killed in mid-training: the run finishes, its data is a local run's (minutes)"
	@echo "make bench-ray   efficiency of one and of two Ray workers on taking rows in and on evaluation (minutes)"
	@echo "make doctor      what is wrong with this machine or project"

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml infra/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=25.3"
	@# torch first and by its pin, so that no other package's range picks a larger build.
	$(BIN)/python -m pip install --quiet -c infra/constraints.txt torch
	$(BIN)/python -m pip install --quiet -c infra/constraints.txt --editable ".[dev]"
	@# Without .pyc files the first import of transformers' Trainer takes half a minute.
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	touch $@

demo: install
	$(BIN)/python examples/demo.py

demo-clean: install
	$(BIN)/python examples/demo.py --clean

test: install lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(SPREAD)

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(SPREAD)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: install bench-data
	$(BIN)/python bench/story.py

bench-data: install
	OMP_NUM_THREADS=1 $(BIN)/python bench/data.py

bench-data-full: install
	OMP_NUM_THREADS=1 $(BIN)/python bench/data.py --full

bench-near: install
	OMP_NUM_THREADS=1 $(BIN)/python bench/near.py

bench-who-has: install
	OMP_NUM_THREADS=1 $(BIN)/python bench/who_has.py --rows 10000000

bench-real: install
	$(BIN)/python -m pip install --quiet -c infra/constraints.txt --editable ".[dev,bench]"
	OMP_NUM_THREADS=1 $(BIN)/python examples/data/ingest_all.py --data $(DATA)
	OMP_NUM_THREADS=1 $(BIN)/python bench/leaks.py --data $(DATA)
	OMP_NUM_THREADS=1 $(BIN)/python bench/personal_data.py $(DATA)/pii/generated_small.json
	OMP_NUM_THREADS=1 $(BIN)/python bench/drift.py --data $(DATA)
	OMP_NUM_THREADS=1 $(BIN)/python bench/label_errors.py $(DATA)/banking77/train.csv

bench-train: install
	$(BIN)/python bench/train.py

bench-plan: install
	$(BIN)/python bench/plan.py

bench-continual: install
	$(BIN)/python bench/continual.py --data $(DATA)

bench-tuners: install
	$(BIN)/python bench/tuners.py $(DATA)/banking77/train.csv --work .tuneline/bench-tuners

bench-rlhf: install
	$(BIN)/python bench/rlhf.py --data $(DATA)

bench-evaluate: install
	$(BIN)/python -m pip install --quiet -c infra/constraints.txt --editable ".[dev,bench]"
	OMP_NUM_THREADS=1 $(BIN)/python bench/evaluate.py --data $(DATA) --models $(MODELS)

bench-audit: install
	OMP_NUM_THREADS=1 $(BIN)/python bench/audit.py

drill-kill: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/drills/test_drill_kill.py tests/drills/test_drill_kill_stages.py

drill-memory: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/drills/test_memory_cap.py

drill-schedule: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/drills/test_drill_schedule.py

drill-ticks: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_ticks.py

drill-flips: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_flips.py

drill-gate: install
	@# Two desks, a process each: candidates of one desk share what was trained.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(SPREAD) tests/drills/test_drill_gate.py

drill-people: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/people

drill-race: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_race.py

drill-kill-release: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_kill_release.py

bench-release: install
	OMP_NUM_THREADS=1 $(BIN)/python bench/release.py

drill-swap: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_swap.py

drill-chaos: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_chaos.py tests/story/test_killed.py

bench-flow: install
	$(BIN)/python -m pip install --quiet -c infra/constraints.txt --editable ".[dev,bench]"
	$(BIN)/python bench/flow.py

drill-monitor: install
	OMP_NUM_THREADS=1 TUNELINE_REAL_DATA=$(abspath $(DATA)) $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_monitor.py

drill-week: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_week.py

bench-planted: install
	OMP_NUM_THREADS=1 $(BIN)/python bench/planted.py --data $(DATA)

bench-serve: install
	$(BIN)/python bench/serve.py

drill-gc: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_gc.py

drill-stack: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_stack.py

check: install
	$(BIN)/python infra/check.py licences
	$(BIN)/python infra/check.py sbom --to sbom.cdx.json
	@# What could not be asked about fails too (exit code 3), unless one says that one knows.
	$(BIN)/python infra/check.py vulnerabilities || { code=$$?; test $$code = 3 -a "$(UNCHECKED)" = yes && echo "WENT ON: nobody asked whether the pins are vulnerable"; }

drill-ray: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/drills/test_drill_ray.py

bench-ray: install
	OMP_NUM_THREADS=1 $(BIN)/python bench/ray_scaling.py

doctor: install
	$(BIN)/tuneline doctor

clean:
	rm -rf $(VENV) build *.egg-info
