"""Starts commands of this project as processes of their own, without importing torch each time.

Reads lines of JSON from stdin: {"words": [program, argument ...], "log": PATH, "most": samples of a
shard}; answers each with the number of a new process, the first of a session of its own. What it
says goes to PATH, its exit code to PATH.code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path

from robustbench_c.cli.programs import run_program
from robustbench_c.evaluation import sharing


def be(words: list[str], log: str) -> None:
    """Turn this process into a command, and end with it."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    code = 1
    try:
        run_program(words[0], words[1:])
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    Path(f"{log}.tmp").write_text(str(code))
    Path(f"{log}.tmp").rename(f"{log}.code")
    os._exit(code)


OURS = ("cli.evaluate", "cli.train", "evaluation.run", "training.run")
LATE = ("rich.progress", "sklearn.datasets", "torch.fx.experimental.proxy_tensor")
for name in (*(f"robustbench_c.{name}" for name in OURS), *LATE):
    import_module(name)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead leave no zombies
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        sharing.MOST = asked["most"] or sharing.MOST
        be(asked["words"], asked["log"])
    print(child, flush=True)
