"""With k the peak, units that draw only a part of a concept are found by their effect alone."""

import pytest
import torch
from genxai_dissection.paired import FIRST, given
from planted_painter import CAUSES, DECOYS, LEVEL, Channels, Painter

import genxai_core as gx
from genxai_core import Runtime, Segmenter
from genxai_core.errors import BadParameter

RUNTIME = Runtime(device="cpu", quiet=True, batch_size=7)


class Few(Segmenter):
    """Masks ``[N, 3, H, W]``: all of ``whole``; of ``twice`` a pixel in each cell; of ``halves`` one line."""

    concepts = ("whole", "a pixel", "a line")

    def _segment(self, samples):
        masks = samples.images > 0.5
        masks[:, 1, ::2], masks[:, 1, :, ::2] = False, False
        masks[:, 2, 1:] &= ~masks[:, 2, :-1]
        return masks


def literal_peak(model, unit, concept, n):
    """Mean over samples that show the concept of r at the cells that show it: half of it, or else most."""
    found = []
    with torch.no_grad():
        for z in model.sample_latents(n, 0, start=FIRST):
            r = model.activations(z[None])[0, unit]
            mask = Few().segment(gx.Samples(model(z[None]), value_range=(0.0, 1.0)))[0, concept]
            pixels = {(y, x): int(mask[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].sum()) for y in range(4) for x in range(4)}
            most = max(pixels.values())
            if most:
                found.append(max(float(r[p]) for p, count in pixels.items() if count >= min(most, 2)))
    return sum(found) / len(found)


def test_a_peak_is_the_literal_one():
    model, n = Painter().eval(), 15
    means, _ = given(model, Few(), ["units"], RUNTIME, samples=n, k="peak")
    wanted = [[literal_peak(model, unit, c, n) for c in range(3)] for unit in range(8)]
    assert torch.allclose(means["units"], torch.tensor(wanted, dtype=torch.float64), atol=1e-7)
    assert len({round(v, 4) for v in wanted[7]}) == 3  # of noise it differs by place


def test_a_peak_of_what_is_never_seen_is_unknown():
    class Never(Few):
        def _segment(self, samples):
            masks = super()._segment(samples)
            masks[:, 2] = False
            return masks

    means, shares = given(Painter(), Never(), ["units"], RUNTIME, samples=9, k="peak")
    assert shares[2] == 0
    assert means["units"][:, 2].isnan().all()
    assert means["units"][:, :2].isfinite().all()


def test_halves_are_causes_alone():
    explainer = gx.create(
        "explainer/unit-effects", segmenter=Channels(), layers=("units",), samples=24, mean_samples=16, k="peak"
    )
    found = explainer.explain(Painter(), runtime=RUNTIME)
    scores = found.scores["units"]
    assert min(float(scores[unit, c]) for c, units in enumerate(CAUSES) for unit in units) > 0.5
    assert not scores[[*DECOYS, 7]].any()
    assert found.notes["k"] == "the mean of the samples' largest where the concept is"


def test_a_set_is_put_in_at_its_peak():
    how = {"segmenter": Channels(), "concept": "halves", "layer": "units", "units": (3,), "draws": 0, "examples": 0}
    how |= {"samples": 8, "mean_samples": 12, "act": "insert"}
    found = gx.create("explainer/unit-intervention", k="peak", **how).explain(Painter(), runtime=RUNTIME)
    assert float(found.values) == pytest.approx(LEVEL)
    mean = gx.create("explainer/unit-intervention", **how).explain(Painter(), runtime=RUNTIME)
    assert float(mean.values) == pytest.approx(LEVEL / 2)
    assert mean.notes["k"] == "the mean where the concept is"
    assert float(found.effects[2]) > 0.5 > float(mean.effects[2])
    for name in ("unit-effects", "unit-intervention"):
        with pytest.raises(BadParameter, match="k"):
            gx.create(
                f"explainer/{name}", **({} if name == "unit-effects" else how) | {"segmenter": Channels()}, k="most"
            )
