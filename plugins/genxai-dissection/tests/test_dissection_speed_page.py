"""The page on the speed of dissection is written from its kept figures, which are those of both sides in turn."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_that_of_the_kept_figures():
    page = runpy.run_path(str(ROOT / "benchmarks" / "dissection_page.py"))
    kept = json.loads((ROOT / "benchmarks" / "results" / "dissection.json").read_text())
    assert page["PAGE"].read_text() == page["page"](kept)
    assert len(kept["cases"]) == 6
    for case in kept["cases"]:
        assert case["agree"][0] <= 2e-5
        assert case["agree"][1] <= 8
        turns = {name: len(found) for name, found in case["seconds"].items()}
        assert len(set(turns.values())) == 1
        assert set(turns) == {"ours", "plain", "authors"}
    assert {row["samples"] for row in kept["scaling"]} == {1000, 10000}
