"""The page on generative against discriminative classifiers says what was measured, and measures what it says."""

from __future__ import annotations

import importlib.util
import json
import statistics
from pathlib import Path

import pytest
import torch

from genxai_core import draws

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("gc_benchmark", ROOT / "benchmarks" / "generative_classifier.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_written_from_its_kept_figures(benchmark):
    kept = json.loads(benchmark.FIGURES.read_text())
    assert len(kept["seeds"]) >= 5
    assert kept["levels"] == {kind: list(levels) for kind, levels in benchmark.LEVELS.items()}
    assert benchmark.PAGE.read_text() == benchmark.page(kept)
    assert benchmark.PICTURE.is_file()


def test_a_square_has_its_side_and_noise_its_deviation_and_both_stay_in_the_range(benchmark):
    gray = torch.zeros(200, 1, 8, 8)
    for kind, value in (("black", -1.0), ("white", 1.0)):
        for side in (1, 3):
            found = benchmark.altered(gray, kind, side, 0)
            # the sum over the image of a bilinear doubling is four times that at 8 px
            assert found.shape == (200, 1, 16, 16)
            totals = found.sum((1, 2, 3))
            inside = totals[(totals - 4 * value * side**2).abs() < 1e-3]  # squares at the border weigh more
            assert len(inside) > 20
            assert torch.equal(found, benchmark.altered(gray, kind, side, 0))
        assert torch.equal(benchmark.altered(gray, kind, 0, 0), torch.zeros(200, 1, 16, 16))
    noise = 0.2 * draws.normal(0, range(200), (1, 8, 8), stream="benchmark-noise")
    expected = torch.nn.functional.interpolate(noise, size=(16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(benchmark.altered(gray, "noise", 0.1, 0), expected)
    assert float(benchmark.altered(gray, "noise", 2.0, 0).abs().max()) <= 1


def test_intervals_are_students(benchmark):
    values = [1.0, 2.0, 4.0, 5.0, 8.0]
    mean, half = benchmark.interval(values)
    assert mean == 4
    assert half == pytest.approx(2.776 * statistics.stdev(values) / 5**0.5)


def test_the_better_one_is_the_one_whose_interval_excludes_zero(benchmark):
    def kept(differences):
        cells = {
            name: [{"accuracy": 0.5 + (d if name == "generative" else 0.0)} for d in differences]
            for name in benchmark.MODELS
        }
        return {"figures": {"black": cells}}

    up_down_same = [kept([0.1 + e, -0.1 + e, 20 * e, *[0.0] * 4]) for e in (0.01, -0.01, 0.02, -0.02, 0.0)]
    seeds = {"seeds": {str(i): s for i, s in enumerate(up_down_same)}}
    said = benchmark.verdict(seeds, "black", "accuracy", True)
    assert said.endswith("generative at 0; discriminative at 1; neither at 2, 3, 4, 5, 6.")
    assert "generative at 1; discriminative at 0" in benchmark.verdict(seeds, "black", "accuracy", False)
