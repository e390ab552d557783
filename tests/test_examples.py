"""Every example pipeline runs in the real program, made smaller as its own ``# ci:`` lines say.

Those in examples/data/ need outside data: put it in a folder and name it in GENXAI_TEST_DATA, else they are skipped.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from genxai_core import storage

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GENXAI_TEST_DATA", ROOT.parent / "shared" / "data"))
EXAMPLES = sorted(ROOT.glob("examples/**/*.yaml"))


def reductions(path: Path) -> list[str]:
    """Read the options in the ``# ci:`` lines of the comment at the top of a pipeline file."""
    options: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("# ci:"):
            options += shlex.split(line.removeprefix("# ci:"))
    return options


def test_there_are_examples_and_each_says_how_to_make_it_smaller():
    assert "quickstart" in {p.stem for p in EXAMPLES}
    assert [p.name for p in EXAMPLES if not reductions(p)] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.relative_to(ROOT / "examples").with_suffix("").as_posix())
def test_an_example_runs_and_a_second_run_does_nothing(path, tmp_path):
    options = reductions(path)
    if path.parent.name == "data":
        if not DATA.is_dir():
            pytest.skip(f"{path.name} needs outside data: name its folder in GENXAI_TEST_DATA ({DATA} is not there)")
        options += ["--data", str(DATA)]
    out = tmp_path / "run"
    command = [sys.executable, "-m", "genxai_core", "run", path, *options, "--out", out, "--json"]
    environment = {**os.environ, "GENXAI_CACHE": str(tmp_path / "cache")}

    def run() -> dict:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first = run()
    manifest = storage.read_json(out / "manifest.json")
    steps = list(storage.read_yaml(path).value["steps"])
    assert sorted(first["ran"]) == sorted(steps)
    assert first["found"] == []
    assert manifest["status"] == "complete"
    assert {name: step["status"] for name, step in manifest["steps"].items()} == dict.fromkeys(
        manifest["steps"], "done"
    )
    assert set(manifest["hashes"]["steps"]) == set(steps)
    report = (out / "report.html").read_text()
    assert len(report) < 10_000_000
    assert all(f"{name}" in report for name in steps)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in out.rglob("*") if p.is_file()}

    second = run()
    assert second["ran"] == []
    assert sorted(second["found"]) == sorted(steps)
    changed = {
        p.name for p in out.rglob("*") if p.is_file() and before.get(p) != (p.stat().st_mtime_ns, p.stat().st_size)
    }
    assert changed <= {"pipeline.yaml"}  # which is written from the file each time
    assert (out / "report.html").read_text() == report
