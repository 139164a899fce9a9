"""A cluster of one node on this machine; where there is none, its tests are skipped and say why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from slurm_cluster import SCRIPT, Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("submitit", reason="no submitit: pip install 'robustbench-c[slurm]'")
    folder = tmp_path_factory.mktemp("cluster")
    words = ["bash", str(SCRIPT)]
    started = subprocess.run(
        [*words, "start", str(folder), str(os.getpid())], capture_output=True, text=True
    )
    if started.returncode:
        pytest.skip(started.stderr.strip() or "no Slurm cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield Cluster(folder)
    subprocess.run([*words, "stop", str(folder)], check=True)
