"""Sets of units: curves and pairs show what an ablation of one unit hides, edits are handed on."""

import dataclasses
import itertools

import planted_painter
import pytest
import torch
from genxai_dissection.curves import random_orders
from genxai_dissection.intervened import Intervention
from genxai_dissection.intervention_section import sections
from genxai_dissection.jackknife import QUANTILES
from genxai_dissection.paired import FIRST
from planted_painter import Channels, Painter, iou

import genxai_core as gx
from genxai_core import Runtime, UnitScores, builtin, pipeline, registry, units
from genxai_core.errors import BadParameter, ExplainerError, GenxaiError, InputError
from genxai_core.plugins import PluginHost
from genxai_core.registry import Registry
from genxai_core.testing import LinearGenerator

RUNTIME = Runtime(device="cpu", quiet=True, batch_size=16)
FEW = {"samples": 12, "mean_samples": 16, "alpha_samples": 16}


def intervention(model, segmenter, concept, **how):
    explainer = gx.create("explainer/unit-intervention", segmenter=segmenter, concept=concept, **{**FEW, **how})
    return explainer.explain(model, runtime=RUNTIME)


# -- curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_ablations_one_by_one():
    model = Painter()
    found = intervention(model, Channels(), "twice", scores=iou(), count=4, draws=3)
    z = model.sample_latents(12, 0, start=FIRST + 32)
    with torch.no_grad():
        base = (model(z)[:, 1] > 0.5).double().mean((1, 2))
        for name, orders in found.orders.items():
            changes = torch.zeros(len(orders), 5, 12).double()
            for d, n in itertools.product(range(len(orders)), range(1, 5)):
                with units.edit(model, "units", orders[d, :n]):
                    changes[d, n] = (model(z)[:, 1] > 0.5).double().mean((1, 2)) - base
            mean = changes.mean((0, 2))
            assert torch.allclose(found.curves[name][:, 1], mean, atol=1e-9)
            half = 1.96 * changes.mean(0).std(1) / 12**0.5
            if len(orders) > 1:
                half = (half**2 + (QUANTILES[1] * changes.mean(2).std(0) / 3**0.5) ** 2).sqrt()
            assert torch.allclose(found.curve_intervals[name][:, 1, 1], mean + half, atol=1e-9)
    assert found.orders["iou"].tolist() == [[1, 2, 6, 7]]
    assert found.orders["random"].shape == (3, 4)
    curve = found.curves["iou"][:, 1]
    assert curve[:2].tolist() == [0, 0]  # without one of the two, the other draws on
    assert float(curve[2]) == -float(found.shares[0, 1]) < 0


def test_random_orders_are_of_all_units_and_differ():
    orders = random_orders(0, 4, 12, 12)
    assert [sorted(order) for order in orders.tolist()] == [list(range(12))] * 4
    assert len({tuple(order) for order in orders.tolist()}) == 4
    assert torch.equal(random_orders(0, 2, 12, 5), orders[:2, :5])


def test_redundant_pairs_are_found_by_joint_ablation_only():
    model = Painter()
    found = intervention(model, Channels(), "twice", layer="units", units=(6, 1, 0, 2), pairs=True, draws=0)
    share = float(found.shares[0, 1])
    assert found.pairs[0].tolist() == [1, 2]
    assert found.drops[0].tolist() == [0, 0, share]
    assert found.excess.tolist() == [share, 0, 0, 0, 0, 0]
    assert found.redundant() == [(1, 2)]

    halves = intervention(model, Channels(), "halves", layer="units", units=(3, 4), pairs=True, draws=0)
    share = float(halves.shares[0, 2])
    assert halves.drops[0].tolist() == pytest.approx([share / 2, share / 2, share])  # they add up
    assert halves.redundant() == []
    with pytest.raises(ExplainerError, match="no pairs were ablated"):
        intervention(model, Channels(), "halves", layer="units", units=(3, 4), draws=0).redundant()


# -- what is handed on ------------------------------------------------------------------------------------------------


def test_the_edits_are_applied():
    model = Painter().eval()
    off = intervention(model, Channels(), "twice", scores=iou(), count=2)
    assert isinstance(off, gx.UnitEdits)
    z = model.sample_latents(9, 4)
    edited = gx.create("generator/edited", base=model, edits=off)
    assert not edited(z)[:, 1].any()
    assert torch.equal(edited(z)[:, 0], model(z)[:, 0])
    upper = intervention(model, Channels(), "twice", scores=iou(), count=2, act="insert", locations=(0, 0, 0.5, 1))
    put = gx.create("generator/edited", base=model, edits=upper)(z)
    assert torch.allclose(put[:, 1, :4], torch.full((9, 4, 8), 0.9))
    assert torch.equal(put[:, 1, 4:], model(z)[:, 1, 4:])
    assert upper.effects[1] == 1
    assert upper[:1].table()[0]["unit"] == 1


def test_pictures_are_of_the_samples_that_show_most():
    found = intervention(Painter(), Channels(), "whole", layer="units", units=(0,), examples=3)
    shown = (found.before[:, 0] > 0.5).float().mean((1, 2))
    assert shown.tolist() == [0.25] * 3
    assert not found.ablated[:, 0].any()
    assert torch.allclose(found.inserted[:, 0], torch.full((3, 8, 8), 0.9))
    assert torch.equal(found.inserted[:, 1:], found.before[:, 1:])
    figures = found.figures()
    assert set(figures) == {"images", "effects", "curves"}
    assert intervention(Painter(), Channels(), "whole", layer="units", units=(0,), examples=0).images_figure() is None


def test_tables_and_figures_say_what_was_found():
    how = {"layer": "units", "scores": iou(), "steps": 4, "count": 3, "pairs": True, "draws": 2}
    found = intervention(Painter(), Channels(), "twice", **how)
    assert set(found.figures()) == set(found.captions)
    row = found.effect_table()[1]
    assert row["concept"] == "twice"
    assert row["relative"] == pytest.approx(row["effect"] / row["unedited"])
    assert row["effect"] == pytest.approx(row["inserted"] - row["ablated"])
    assert found.summary()["left when ablated"].startswith("0% of 0.")
    assert [set(r) for r in found.table()] == [{"layer", "unit", "factor", "k", "alpha"}] * 3
    labels = [text.get_text() for text in found.curve_figure().axes[0].get_legend().get_texts()]
    assert labels == ["iou", "alpha", "random, mean of 2"]


def test_the_report_tells_effects_and_pairs():
    found = intervention(Painter(), Channels(), "twice", layer="units", units=(1, 2, 6), pairs=True, draws=0)
    effects, pairs = sections(found)
    assert effects.table == found.effect_table()
    assert "Units 1, 2, 6 of units" in effects.text
    share = float(found.shares[0, 1])
    assert pairs.table[0] == {
        **{"first": 1, "second": 2, "drop, first off": 0, "drop, second off": 0, "drop, both off": share},
        **{"excess": share, "low": found.excess_intervals[0, 0], "high": found.excess_intervals[0, 1]},
    }
    assert len(pairs.table) == 3
    some, _ = sections(found[:1])  # fewer edits: what was measured stays that of the set
    assert some.text == effects.text
    assert found[:1].summary() == found.summary()
    assert list(sections({"kid": 0.1})) == []


PIPELINE = """\
genxai: 1
name: causes
steps:
  painter: {use: generator/painter}
  segmenter: {use: segmenter/channels}
  effects:
    use: explainer/unit-effects
    with: {segmenter: $segmenter, layers: [units], samples: 8, mean_samples: 8}
    call: {model: $painter}
  cause:
    use: explainer/unit-intervention
    with: {segmenter: $segmenter, concept: twice, scores: $effects, count: 2, samples: 8, mean_samples: 8, draws: 2}
    call: {model: $painter}
  fixed: {use: generator/edited, with: {base: $painter, edits: $cause}}
  one: {use: generator/edited, with: {base: $painter, edits: "$cause[:1]"}}
"""


def test_a_pipeline_from_scores_to_an_edited_generator(tmp_path):
    with registry.using(Registry(PluginHost(builtin=[builtin, planted_painter]))):
        (tmp_path / "p.yaml").write_text(PIPELINE)
        plan = pipeline.plan(pipeline.read(tmp_path / "p.yaml"))
        done = pipeline.run(plan, out=tmp_path / "out", cache=tmp_path / "cache")
        fixed, z = done.result("fixed"), Painter().sample_latents(8, 3)
        cause = done.result("cause")
        assert isinstance(cause, Intervention)
        assert sorted(cause.units.tolist()) == [1, 2]
        assert set(cause.orders) == {"ace", "random"}
        assert not fixed(z)[:, 1].any()
        assert torch.equal(done.result("one")(z), Painter()(z))
        page = (tmp_path / "out" / "report.html").read_text()
        assert "effect on twice" in page
        assert "What the units cause" in page


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"layer": "units"}, "say which units"),
        ({"units": (0,)}, "without a layer"),
        ({"steps": 3}, "name the layer, or give scores"),
        ({"layer": "units", "units": (0, 0)}, "at least one, each once"),
        ({"layer": "units", "units": (-1,)}, "channel numbers"),
        ({"layer": "units", "units": (0,), "order": "random"}, "leave one out"),
        ({"layer": "units", "order": "alpha"}, "needs steps above 0"),
        ({"layer": "units", "units": (0,), "amount": 0.0}, "amount 0.0 must be above 0"),
        ({"layer": "units", "units": (0,), "draws": 1}, "draws 1 must be 0, or 2 to 20"),
        ({"layer": "units", "units": (0,), "draws": 21}, "draws 21 must be 0, or 2 to 20"),
        ({"layer": "units", "units": (0,), "locations": (0.5, 0, 0.5, 1)}, "are not all, cell, concept, or a box"),
        ({"layer": "units", "units": (0,), "locations": "there"}, "locations"),
        ({"layer": "units", "units": (0,), "count": 0}, "count 0 must be at least 1"),
        ({"layer": "units", "units": (0,), "rate": 0.0}, "rate 0.0 must be positive"),
    ],
)
def test_parameters_that_contradict_are_told(how, said):
    with pytest.raises(BadParameter, match=said):
        gx.create("explainer/unit-intervention", segmenter=Channels(), concept="whole", **how)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"concept": "hair"}, "there is no concept 'hair'"),
        ({"units": (0, 8)}, "layer 'units' has 8 units; unit 8 is none of them"),
        ({"layer": "unit"}, "did you mean 'units'"),
        ({"locations": (0, 0, 0.01, 0.01)}, "no cell of a layer of 4×4"),
        ({"scores": UnitScores({"units": torch.ones(5, 1)}, concepts=("whole",)), "units": None}, "scores are of 5"),
        ({"scores": iou(), "units": None, "concept": "hair"}, "hair"),
    ],
)
def test_what_does_not_fit_the_model_is_told(how, said):
    how = {"concept": "whole", "layer": "units", "units": (0,), **how}
    with pytest.raises(GenxaiError, match=said):
        intervention(Painter(), Channels(), how.pop("concept"), **how)


@pytest.mark.parametrize(
    ("values", "higher", "said"),
    [
        ([0.0, 0.0, 0.0], True, "no iou of a unit of layer 'units' is above 0 for 'whole', so the scores choose none"),
        ([0.0, -0.2, -0.1], True, "no iou of a unit of layer 'units' is above 0 for 'whole'"),
        ([0.5, 0.5, 0.5], False, "no iou of a unit of layer 'units' differs for 'whole'"),
    ],
)
@pytest.mark.parametrize("layer", [None, "units"])
def test_scores_that_choose_no_unit_are_refused(values, higher, said, layer):
    column = torch.tensor(values + [values[0]] * 5)[:, None]
    scores = UnitScores({"units": column}, concepts=("whole",), higher_is_better=higher)
    with pytest.raises(InputError, match=said):
        intervention(Painter(), Channels(), "whole", layer=layer, scores=scores)


def test_units_that_do_not_score_above_0_never_fill_a_set():
    """Two causes and a decoy have an IoU with ``twice``, and noise a little; the other four have none."""
    found = intervention(Painter(), Channels(), "twice", scores=iou(), count=6, draws=2)
    assert found.chosen.tolist() == [1, 2, 6, 7]
    assert found.orders["iou"].tolist() == [[1, 2, 6, 7]]
    assert found.orders["random"].shape == (2, 4)
    assert found.notes["fewer units"] == found.summary()["fewer units"] == "4 of 6: no other iou is above 0"
    few = intervention(Painter(), Channels(), "twice", scores=iou(), count=4, draws=0)
    assert "fewer units" not in {**few.notes, **few.summary()}
    below = UnitScores({"units": torch.tensor([[0.3], *[[-0.1]] * 7])}, concepts=("whole",))
    assert intervention(Painter(), Channels(), "whole", scores=below, count=3, draws=0).chosen.tolist() == [0]
    everything = intervention(Painter(), Channels(), "whole", layer="units", order="random", count=9)
    assert everything.notes["fewer units"] == "8 of 9: the layer has no more"


def test_units_of_alpha_0_never_fill_a_set():
    how = {"layer": "units", "scores": iou(), "count": 8, "draws": 0}
    found = intervention(Painter(), Channels(), "whole", **how, steps=40)
    above = int((found.alpha > 0).sum())
    assert 1 <= above < 8
    assert len(found.chosen) == found.orders["alpha"].shape[1] == above
    assert bool((found.alpha[found.chosen] > 0).all())
    assert found.notes["fewer units"] == f"{above} of 8: no other alpha is above 0"
    with pytest.raises(InputError, match="alpha is 0 for all 8 units after 40 steps, so it chooses none; lower pen"):
        intervention(Painter(), Channels(), "whole", **how, steps=40, penalty=1000.0)


def test_scores_that_choose_no_unit_may_stand_beside_what_does():
    scores = UnitScores({"units": torch.zeros(8, 1)}, concepts=("whole",))
    how = {"layer": "units", "scores": scores, "draws": 0, "count": 1}
    assert intervention(Painter(), Channels(), "whole", **how, steps=40).units.tolist() == [0]
    found = intervention(Painter(), Channels(), "whole", **how, units=(5,))
    assert found.units.tolist() == [5]
    assert set(found.curves) == {"given"}  # no order is made of scores that tell nothing


def test_where_lower_is_better_a_score_of_zero_is_a_good_one():
    distances = torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1])[:, None]
    scores = UnitScores({"units": distances}, concepts=("whole",), measure="distance", higher_is_better=False)
    found = intervention(Painter(), Channels(), "whole", scores=scores, count=1, draws=0)
    assert found.units.tolist() == [0]


def test_the_layer_of_the_best_unit_is_taken():
    scores = UnitScores(
        {"enlarge": torch.full((4, 1), 0.1), "layers": torch.tensor([[0.0], [0.3], [0.1], [0.2]])}, concepts=("q1",)
    )
    found = intervention(LinearGenerator(), planted_painter.Quadrants(), "q1", scores=scores, count=2, draws=0)
    assert found.layers == ("layers", "layers")
    assert found.units.tolist() == [1, 3]


def test_results_that_do_not_fit_together_are_refused():
    found = intervention(Painter(), Channels(), "whole", layer="units", units=(0,))
    for name, value in (("concept", "hair"), ("effects", torch.zeros(2)), ("curves", {}), ("ablated", None)):
        with pytest.raises(ExplainerError, match=f"intervention: {name}"):
            dataclasses.replace(found, **{name: value})
