"""The wheel: four packages, with all that they need, and small."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

HERE = Path(__file__).parents[1]
PACKAGES = {"robustbench_c", "attacks", "certify", "leaderboards"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the tree and nothing in it leaks in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (HERE / name).exists():
            shutil.copy(HERE / name, source)
    for name in (*PACKAGES, "tests", "scripts"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(HERE / name, source / name, ignore=ignore)
    (source / "runs").mkdir()
    (source / "runs" / "__init__.py").write_text("")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    built = subprocess.run(
        [*command, str(source)], capture_output=True, text=True, check=False, timeout=300
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.slow
def test_four_packages_and_nothing_else(names):
    tops = {PurePosixPath(name).parts[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


@pytest.mark.slow
def test_everything_tracked_in_a_package_is_inside(names):
    listed = subprocess.run(
        ["git", "ls-files", *sorted(PACKAGES)],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert set(listed.stdout.split()) <= names
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    for part in ("data/assets/", "zoo/weights/", "training/recipes/"):
        assert any(name.startswith(f"robustbench_c/{part}") for name in names)
    for notice in ("FASHION-MNIST", "GERMAN-CREDIT"):
        assert any("licenses" in name and notice in name for name in names)


@pytest.mark.slow
def test_small(wheel):
    assert wheel.stat().st_size < 20e6


@pytest.mark.slow
def test_installed_elsewhere_it_works(wheel, tmp_path):
    """Unpacked as pip would, and run from another folder: data, weights and recipes are found."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        "from robustbench_c.cli.evaluate import main; main()"
    )
    arguments = ["--model", "fmnist-cnn-pgd", "--samples", "8", "--steps", "2", "--restarts", "1"]
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "site"), *arguments, "--device", "cpu"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert "record: runs/fmnist-cnn-pgd-fashion-mnist-mini-pgd-linf-0.1-" in ended.stdout


def test_entry_points_exist():
    import tomllib
    from importlib import import_module

    scripts = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["scripts"]
    assert {"robust-eval", "robust-train", "robust-runs"} <= set(scripts)
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))
