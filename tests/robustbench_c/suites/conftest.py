from __future__ import annotations

import pytest

from robustbench_c.suites import JobLog


@pytest.fixture
def folders_are_results(monkeypatch):
    """Let a folder stand for a run that is complete; nothing large is held or collected."""
    monkeypatch.setattr("robustbench_c.suites.working.gc.collect", lambda: 0)
    monkeypatch.setattr(
        JobLog,
        "holds",
        lambda log, record: record.state == "done" and (log.folder.parent / record.result).is_dir(),
    )
