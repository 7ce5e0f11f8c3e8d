"""The benchmark runner: one engine for every table, that survives crashes and scores in pairs."""

from .config import Plan, RunConfig, find_config, load_config, load_plan, with_data
from .diff import Difference, compare_runs
from .report import write_report
from .results import Results, score_run
from .rows import Row, plan_rows
from .run import evaluate
from .shard import Shard
from .sources import load_suite
from .suite import Sample, Suite, make_suite
from .summary import write_summary

__all__ = [
    "Difference",
    "Plan",
    "Results",
    "Row",
    "RunConfig",
    "Sample",
    "Shard",
    "Suite",
    "compare_runs",
    "evaluate",
    "find_config",
    "load_config",
    "load_plan",
    "load_suite",
    "make_suite",
    "plan_rows",
    "score_run",
    "with_data",
    "write_report",
    "write_summary",
]
