"""Further rows, beside the test split, and what subjects score on them; docs/suites.md has the file formats.

Rows are read from files here, within bounds; who answers is behind `Ways`. No model enters.
"""

from pipeline.evaluation.suites.reading import read_suite
from pipeline.evaluation.suites.running import run_suite
from pipeline.evaluation.suites.suite import Suite, Ways

__all__ = ["Suite", "Ways", "read_suite", "run_suite"]
