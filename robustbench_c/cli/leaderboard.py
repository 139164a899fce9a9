"""`robust-leaderboard`: gates over runs and over timings."""

from __future__ import annotations

from robustbench_c.cli.app import new_app, run_app
from robustbench_c.cli.gate import baseline, check
from robustbench_c.cli.speed_gate import speed

app = new_app()
for command in (check, baseline, speed):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    run_app(app, "robust-leaderboard")
