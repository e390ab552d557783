"""The page on the cost of scoring is written from its kept figures."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_that_of_the_kept_figures():
    found = runpy.run_path(str(ROOT / "benchmarks" / "correction.py"))
    kept = json.loads((ROOT / "benchmarks" / "results" / "correction.json").read_text())
    assert found["PAGE"].read_text() == found["page"](kept)
    assert {(case["size"], case["samples"]) for case in kept["scoring"]} == {(32, 64), (32, 256), (64, 64), (64, 256)}
    for case in [*kept["scoring"], *kept["ablating"]]:
        assert {len(seconds) for seconds in case["seconds"].values()} == {kept["rounds"]}
