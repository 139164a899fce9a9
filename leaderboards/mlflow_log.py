"""Runs as runs of MLflow: what was set as parameters, what was found as metrics. Needs mlflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leaderboards.board_columns import COLUMNS
from leaderboards.boards import Row, boards_of
from leaderboards.entries import Entry
from leaderboards.errors import RecordError
from leaderboards.export import plain
from leaderboards.store import MANIFEST, SUMMARY

IDENTITY = "robustbench_c.identity"
"""Tag by which a run that is there already is known."""
_PARAMETERS = (
    *("model", "model_sha256", "architecture", "training", "dataset", "split", "n", "subject"),
    *("norm", "eps", "eps_unit", "attacks", "verifier", "protocol", "protocol_sha256", "device"),
)
_TAGS = ("flags", "reliable", "complete", "reproducible", "tool_version")
_LONGEST = 500


def log_runs(
    entries: Sequence[Entry], experiment: str, tracking_uri: str | None = None
) -> tuple[list[str], int]:
    """Write runs to an MLflow server or folder; those that are there are left as they are.

    Args:
        entries: The runs.
        experiment: Its name; made if it is not there.
        tracking_uri: Where to write; None for what MLflow is set to.

    Returns:
        The ids of the runs that were written, and how many were there.

    Raises:
        RecordError: mlflow is not installed, or cannot write there.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise RecordError("mlflow is not installed: pip install 'robustbench-c[mlflow]'") from None
    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        where = client.create_experiment(experiment) if found is None else found.experiment_id
        rows = [row for board in boards_of(entries) for row in board.rows]
        new = [row for row in rows if not _is_there(client, where, row)]
        return [_write(client, where, row) for row in new], len(rows) - len(new)
    except (MlflowException, OSError) as error:
        raise RecordError(f"mlflow: {error}") from None


def _is_there(client: Any, experiment: str, row: Row) -> bool:
    wanted = f"tags.`{IDENTITY}` = '{row.entry.manifest.identity()}'"
    return bool(client.search_runs([experiment], filter_string=wanted, max_results=1))


def _write(client: Any, experiment: str, row: Row) -> str:
    """Write a run; it counts as there when its last tag is."""
    entry, values = row.entry, {column.key: plain(column.value(row)) for column in COLUMNS}
    begun = int(entry.manifest.created.timestamp() * 1000)
    run = client.create_run(experiment, start_time=begun, run_name=entry.manifest.run_id)
    name = str(run.info.run_id)
    for key in _PARAMETERS:
        if values[key] not in (None, ""):
            client.log_param(name, key, str(values[key])[:_LONGEST])
    for column in COLUMNS:
        value = values[column.key]
        measured = column.kind in ("rate", "number", "count") and column.key not in _PARAMETERS
        if measured and isinstance(value, int | float):
            client.log_metric(name, column.key, float(value), timestamp=begun)
    for key in _TAGS:
        if values[key] is not None:
            client.set_tag(name, key, str(values[key])[:_LONGEST])
    for file in (MANIFEST, SUMMARY):
        client.log_artifact(name, str(entry.folder / file))
    client.set_terminated(name, "FINISHED")
    client.set_tag(name, IDENTITY, entry.manifest.identity())
    return name
