"""Who runs the workers of a command: this process, processes beside it, or a cluster's scheduler.

Workers share a folder and nothing else, and no executor orchestrates them: each is the same command
with `--shard I/N`, claims work by leases, and ends when all of it is done. A worker that is lost
loses the shard it was at, which others take over.

Light to import: no torch.
"""

from __future__ import annotations

from robustbench_c.executors.local import LocalExecutor
from robustbench_c.executors.protocol import Ended, Executor, Here, InlineExecutor, Say, Work

__all__ = ["Ended", "Executor", "Here", "InlineExecutor", "LocalExecutor", "Say", "Work"]
