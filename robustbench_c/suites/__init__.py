"""Suites: many runs from one file, by any number of workers.

Light to import: no torch.
"""

from __future__ import annotations

from robustbench_c.suites.job import Job
from robustbench_c.suites.joblog import JobLog, JobRecord
from robustbench_c.suites.suite import Suite, known_suites, load_suite
from robustbench_c.suites.working import Worker

__all__ = [
    "Job",
    "JobLog",
    "JobRecord",
    "Suite",
    "Worker",
    "known_suites",
    "load_suite",
]
