"""Corrections against the algorithm done in loops, and what of them is refused."""

import dataclasses

import pytest
import torch
from genxai_correction import strategies
from genxai_correction.choosing import split
from genxai_correction.correcting import CorrectUnits
from genxai_correction.correction import Correction
from genxai_correction.defects import artifact_thresholds
from genxai_correction.proof_intervals import of_difference
from torch import nn
from torch.nn import functional as F

import genxai_core as gx
from genxai_core import Discriminator, Generator, Runtime, Samples, Spec, UnitEdits, draws, units
from genxai_core.errors import ExplainerError, GenxaiWarning, InputError, TargetError
from genxai_core.testing.fixtures import with_plugin

RUNTIME = Runtime(device="cpu", batch_size=7, quiet=True)
LAYERS = ("one", "two", "three")


class Chain(Generator):
    """Latents [N, 6] to images [N, 1, 8, 8], through three layers at 2, 4 and 8 cells."""

    value_range = (-1.0, 1.0)
    latent_shape = (6,)

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(6, 5 * 4)
        self.one, self.two, self.three = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.first = nn.ConvTranspose2d(5, 6, 4, 2, 1)
        self.second = nn.ConvTranspose2d(6, 4, 4, 2, 1)
        self.end = nn.Conv2d(4, 1, 3, padding=1)
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(0.6 * draws.normal(3, [i], parameter.shape)[0])

    def sample_latents(self, n, seed, start=0):
        return draws.normal(seed, range(start, start + n), (6,))

    def forward(self, latents):
        low = self.one(self.start(latents).view(-1, 5, 2, 2))
        return torch.tanh(0.5 * self.end(self.three(self.second(self.two(self.first(low))))))


class Corner(Discriminator):
    """Two logits, of which the second grows with the brightness of the upper left corner."""

    class_names = ("normal", "artifact")
    value_range = (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(5.0))

    def forward(self, images):
        half = self.gain * (images[:, :, :4, :4].mean((1, 2, 3)) - 0.1)
        return torch.stack([-half, half], 1)


def given(n=40):
    """Return the generator, the judge, and samples with labels and masks: corners brighter than 0.1."""
    model, judge = Chain().eval(), Corner().eval()
    latents = model.sample_latents(n, 0)
    with torch.no_grad():
        images = model(latents)
        labels = (judge(images)[:, 1] > 0).long()
    masks = torch.zeros_like(images).bool()
    masks[:, :, :4, :4] = images[:, :, :4, :4] > 0
    about = {"class_names": ("normal", "artifact"), "concepts": ("artifact",)}
    return model, judge, Samples(images, latents, labels, masks, value_range=(-1.0, 1.0), **about)


def literal(model, latents, masks, thresholds, count, strength):
    """Return the sequential correction as (layer, unit) -> factor, in order, one sample and one unit at a time."""
    factors = {}
    for layer in LAYERS:
        sums = [0.0] * len(thresholds[layer])
        for latent, mask in zip(latents, masks):
            maps = forward(model, latent[None], factors)[layer]
            for unit, level in enumerate(thresholds[layer].tolist()):
                up = F.interpolate(maps[:, unit : unit + 1], mask.shape[1:], mode="bilinear", align_corners=False)[0]
                both, either = 0, 0
                for active, inside in zip((up > level).flatten().tolist(), mask.flatten().tolist()):
                    both, either = both + (active and inside), either + (active or inside)
                sums[unit] += both / either if either else 0.0
        scores = [each / len(latents) for each in sums]
        top = sorted(range(len(scores)), key=lambda unit: (-scores[unit], unit))[:count]
        factors |= {(layer, unit): strength * (1 - scores[unit]) for unit in top if scores[unit] > 0}
    return factors


@torch.no_grad()
def forward(model, latent, factors):
    """Run the generator without hooks, units of each layer multiplied; return its activations."""
    found = {"one": F.relu(model.start(latent).view(-1, 5, 2, 2))}
    for layer, after, follows in (("one", "two", model.first), ("two", "three", model.second), ("three", "", None)):
        for (at, unit), factor in factors.items():
            if at == layer:
                found[layer][:, unit] *= factor
        if follows is not None:
            found[after] = F.relu(follows(found[layer]))
    found["image"] = torch.tanh(0.5 * model.end(found["three"]))
    return found


@pytest.mark.parametrize(("count", "strength"), [(1, 0.9), (2, 0.5), (3, 0.0)])
def test_the_sequential_correction_is_that_of_the_algorithm(count, strength):
    model, _, samples = given()
    bad = samples[samples.labels.nonzero()[:, 0].tolist()][:9]
    thresholds = artifact_thresholds(model, samples.latents, LAYERS, RUNTIME, 0.9)
    wanted = literal(model, bad.latents, bad.masks, thresholds, count, strength)
    _, score = strategies.scorer(model, bad.latents, bad.masks, thresholds, RUNTIME)
    found = list(strategies.sequential(LAYERS, score, None, [count], [strength]))
    for stop, candidate in enumerate(found):
        units_of = list(zip(candidate.edits.layers, candidate.edits.units.tolist()))
        assert units_of == [unit for unit in wanted if unit[0] in LAYERS[: stop + 1]]
        torch.testing.assert_close(candidate.edits.factors, torch.tensor([wanted[unit] for unit in units_of]))
        torch.testing.assert_close(
            strength * (1 - candidate.defects), torch.tensor([wanted[unit] for unit in units_of]).double()
        )
    with torch.no_grad(), units.applied(model, found[-1].edits):
        images = model(bad.latents)
    torch.testing.assert_close(images, forward(model, bad.latents, wanted)["image"])


def test_later_layers_are_scored_on_corrected_inputs():
    model, _, samples = given()
    bad = samples[samples.labels.nonzero()[:, 0].tolist()]
    thresholds = artifact_thresholds(model, samples.latents, LAYERS, RUNTIME, 0.9)
    plain, score = strategies.scorer(model, bad.latents, bad.masks, thresholds, RUNTIME)
    last = list(strategies.sequential(LAYERS, score, None, [2], [0.3]))[-1]
    alone = {(layer, unit): float(plain[layer][unit]) for layer in LAYERS for unit in range(len(plain[layer]))}
    found = dict(zip(zip(last.edits.layers, last.edits.units.tolist()), last.defects.tolist()))
    assert all(alone[unit] == score for unit, score in found.items() if unit[0] == "one")
    assert any(alone[unit] != score for unit, score in found.items() if unit[0] == "two")


def test_one_layer_scales_the_top_units_of_one_layer():
    model, _, samples = given()
    bad = samples[samples.labels.nonzero()[:, 0].tolist()]
    thresholds = artifact_thresholds(model, samples.latents, LAYERS, RUNTIME, 0.9)
    plain, score = strategies.scorer(model, bad.latents, bad.masks, thresholds, RUNTIME)
    found = list(strategies.one_layer(LAYERS, score, {"one": [0], "two": [3, 1, 5], "three": []}, [1, 0.5], [0.0, 0.4]))
    assert [each is None for each in found] == [False] * 8 + [True] * 4
    two = found[4:8]
    best = sorted([1, 3, 5], key=lambda unit: -float(plain["two"][unit]))
    assert [each.edits.units.tolist() for each in two] == [best[:1], best[:1], best[:3], best[:3]]
    assert [each.edits.factors.tolist() for each in two][2:] == [[0.0] * 3, [pytest.approx(0.4)] * 3]
    assert two[3].defects.tolist() == plain["two"][best[:3]].tolist()


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, [2]), (2, [2, 0]), (9, [2, 0, 3]), (0.2, [2]), (0.21, [2, 0]), (0.5, [2, 0, 3])]
)
def test_units_are_counted_or_a_share_and_those_without_a_score_left_out(count, wanted):
    scores = torch.tensor([0.3, 0.0, 0.5, 0.3, 0.0]).double()
    assert strategies.ordered(scores, None, count) == wanted
    assert strategies.ordered(scores, [1, 3], count) == [3, 1][: 2 if count in (2, 9, 0.21, 0.5) else 1]  # as allowed


def test_units_that_stand_in_for_each_other_cause_though_neither_does_alone():
    """Three units draw an image: max of the first two (either will do), and the third, which coincides."""

    class Spare(Chain):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, latents):
            a = self.layer(latents[:, :3].abs()[:, :, None, None].expand(-1, -1, 8, 8) * 0 + 0.9)
            return torch.maximum(a[:, :1], a[:, 1:2]) + 0 * a[:, 2:]

    model = Spare().eval()
    latents = model.sample_latents(6, 0)
    found = strategies.causes(model, latents, Corner().eval(), 1, {"layer": [2, 1, 0]}, RUNTIME)
    assert found == {"layer": [1, 0]}


# -- the whole ------------------------------------------------------------------------------------------------------


def corrected(**how):
    model, judge, samples = given(how.pop("n", 60))
    target = how.pop("target", None)
    parameters = {"classifier": judge, "layers": LAYERS, "quantile": 0.9, "bound": 0.2, "counts": (1, 2), **how}
    return CorrectUnits(**parameters).explain(model, samples, target=target, runtime=RUNTIME), model, judge, samples


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("strategy", ["sequential", "one-layer"])
def test_what_is_promised_is_what_the_edited_generator_does(strategy, conditional):
    found, model, judge, samples = corrected(strategy=strategy, conditional=conditional)
    assert found.chosen is not None
    rates = found.rates[found.allowed]
    assert float(found.rates[found.chosen]) == float(rates.min()) < found.unedited
    assert len(found) == int(found.numbers[found.chosen])
    assert tuple(dict.fromkeys(found.layers)) == found.tried[found.chosen]
    assert found.condition == ({"target": 1, "above": 0.5} if conditional else None)
    made = gx.create("generator/edited", base=model, edits=found, judge=judge if conditional else None)
    with torch.no_grad():
        every = made(samples.latents)
    for before, after, broken in ((found.broken, found.corrected, 1), (found.fine, found.kept, 0)):
        rows = [int((samples.images - image).abs().amax((1, 2, 3)).argmin()) for image in before]
        assert samples.labels[rows].tolist() == [broken] * 6
        assert rows == sorted(rows)
        torch.testing.assert_close(before, samples.images[rows])
        torch.testing.assert_close(after, every[rows])


def test_layers_are_corrected_in_the_order_in_which_they_run():
    one, *_ = corrected(layers=LAYERS)
    other, *_ = corrected(layers=("three", "one", "two"))
    assert (one.layers, one.units.tolist()) == (other.layers, other.units.tolist())
    assert one.notes["layers"] == "one, two, three"


def test_layers_may_be_left_open():
    found, *_ = corrected(layers=None)
    assert found.notes["layers"] == "one, two, three"


def test_nothing_is_edited_where_nothing_helps():
    found, model, judge, samples = corrected(bound=0.0)
    assert (len(found), found.chosen) == (0, None)
    assert "none: every candidate changes samples" in found.summary()["correction"]
    found = CorrectUnits(judge, LAYERS, above=0.999).explain(model, samples, runtime=RUNTIME)
    assert (len(found), found.unedited) == (0, 0.0)
    assert "calls none of the held-out samples broken" in found.summary()["correction"]
    with torch.no_grad():
        images = gx.create("generator/edited", base=model, edits=found)(samples.latents)
    assert torch.equal(images, samples.images)
    assert torch.equal(found.corrected, found.broken)


def test_only_units_that_cause_are_edited_if_asked():
    class Elsewhere(Corner):
        """Sees what no unit changes."""

        def forward(self, images):
            return super().forward(images - images + 0.2)

    found, *_ = corrected(classifier=Elsewhere().eval())
    assert found.tried == ()
    assert "no unit that was checked is active where the artifacts are, or lowers" in found.summary()["correction"]
    assert found.plot() is None


def test_without_labels_the_classifier_says_what_is_broken():
    model, judge, samples = given(60)
    bare = dataclasses.replace(samples, labels=None, class_names=())
    by_word = CorrectUnits(judge, LAYERS, bound=0.2).explain(model, bare, runtime=RUNTIME)
    by_label = CorrectUnits(judge, LAYERS, bound=0.2).explain(model, samples, runtime=RUNTIME)
    assert by_word.units.tolist() == by_label.units.tolist()
    assert by_word.factors.tolist() == by_label.factors.tolist()
    assert (by_word.notes["masks"], len(by_label) > 0) == ("given", True)


def test_masks_may_come_from_any_attribution():
    model, judge, samples = given(60)
    found = CorrectUnits(judge, LAYERS, masks=gx.create("explainer/saliency"), bound=0.2).explain(
        model, samples, runtime=RUNTIME
    )
    assert "saliency" in found.notes["masks"]
    assert len(found) > 0


def test_the_classifier_may_be_a_recipe_and_masks_be_left_to_grad_cam():
    with with_plugin(None):
        model = gx.create("generator/tiny-linear")
        latents = model.sample_latents(40, 0)
        samples = Samples(model(latents).detach(), latents, value_range=(-1.0, 1.0))
        how = {"above": 0.75, "bound": 0.5, "quantile": 0.9}
        found = CorrectUnits(Spec("discriminator/tiny-patch"), ("layers",), **how).explain(
            model, samples, target=0, runtime=RUNTIME
        )
    assert found.units.tolist() == [2]
    assert found.notes["masks"] == "explainer/cam"  # none are given


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"layers": ()},
        {"layers": ("one", "one")},
        {"strategy": "both"},
        {"counts": ()},
        {"counts": (0,)},
        {"counts": (1.5,)},
        {"counts": (0.0,)},
        {"strengths": ()},
        {"strengths": (1.1,)},
        {"above": 1.0},
        {"mask_threshold": -0.1},
        {"quantile": 1.0},
        {"holdout": 0.0},
        {"bound": -0.1},
        {"bound": float("nan")},
        {"checked": 0},
        {"examples": -1},
    ],
    ids=str,
)
def test_parameters_out_of_bounds_are_refused(how):
    with pytest.raises(ValueError, match=next(iter(how))):
        CorrectUnits(Corner(), **how)


def test_inputs_that_cannot_be_corrected_are_refused():
    model, judge, samples = given()
    refused = [
        (dataclasses.replace(samples, latents=None), "no latents"),
        (dataclasses.replace(samples, latents=samples.latents[:, :5]), r"latents are \(5,\)"),
        (dataclasses.replace(samples, latents=samples.latents / 0), "latents hold NaN"),
        (dataclasses.replace(samples, labels=samples.labels * 0), "0 of 40 samples are broken, too few"),
    ]
    for inputs, said in refused:
        with pytest.raises(InputError, match=said):
            CorrectUnits(judge, LAYERS).explain(model, inputs, runtime=RUNTIME)
    for parameters, said in (({"layers": ("four",)}, "four"), ({"classifier": Chain()}, "not a Discriminator")):
        with pytest.raises(InputError, match=said):
            CorrectUnits(**{"classifier": judge, "layers": LAYERS, **parameters}).explain(model, samples)
    with pytest.raises((InputError, TargetError), match="target 2"):
        CorrectUnits(judge, LAYERS).explain(model, samples, target=2)


def test_a_layer_that_takes_no_part_is_refused():
    model, judge, samples = given()
    model.idle = nn.ReLU()
    with pytest.raises(InputError, match="'idle' takes no part"):
        CorrectUnits(judge, ("one", "idle")).explain(model, samples)


# -- the result -----------------------------------------------------------------------------------------------------


def test_a_result_says_what_was_tried_and_chosen(tmp_path):
    found, *_ = corrected()
    rows = found.table()
    assert [row["chosen"] for row in rows].count(True) == 1
    assert rows[found.chosen]["artifact rate"] == float(found.rates[found.chosen])
    assert len({(row["layers"], row["units"], row["strength"]) for row in rows}) == len(rows) == len(found.tried)
    edits = found.edit_table()
    assert [row["defective score"] for row in edits] == found.defects.tolist()
    assert [row["factor"] for row in edits] == pytest.approx(found.factors.tolist())
    assert set(found.figures()) == {"candidates", "broken", "fine", "factors"} == set(found.captions)
    (section,) = found.report_sections()
    assert section.table == edits
    again = Correction.load(found.save(tmp_path / "found"))
    assert isinstance(again, UnitEdits)
    assert again.summary() == found.summary()
    assert (again.tried, again.chosen) == (found.tried, found.chosen)


def test_a_fall_that_may_be_chance_is_told():
    found, *_ = corrected()
    intervals = found.fall_intervals.clone()
    intervals[found.chosen] = torch.tensor([-0.1, 0.4])
    assert "may be chance" in dataclasses.replace(found, fall_intervals=intervals).summary()["caution"]
    intervals[found.chosen] = torch.tensor([0.1, 0.4])
    assert "caution" not in dataclasses.replace(found, fall_intervals=intervals).summary()


def test_the_interval_of_the_fall_is_for_all_candidates_at_once():
    found, _, judge, samples = corrected()
    _, held = split(samples.labels == 1, 0.5, RUNTIME.seed)
    with torch.no_grad():
        before = judge(samples.images[held]).softmax(1)[:, 1] > 0.5
        edited = gx.create("generator/edited", base=Chain().eval(), edits=found)(samples.latents[held])
        after = judge(edited).softmax(1)[:, 1] > 0.5
    value, *ends = of_difference(before, after, len(found.tried))
    assert len(found.tried) > 10
    assert float(found.falls[found.chosen]) == pytest.approx(value)
    assert found.fall_intervals[found.chosen].tolist() == pytest.approx(ends)


def test_the_figures_of_a_part_are_said_to_be_those_of_the_whole():
    found, *_ = corrected()
    assert len(found) > 1
    assert "part" not in found.summary()
    assert found[:1].summary()["part"] == f"these are 1 edits; all figures are those of the {len(found)} chosen"


def test_a_bound_that_held_nothing_back_is_told():
    """Under a condition, without labels, what counts as fine is just what is never edited."""
    model, judge, samples = given(60)
    bare = dataclasses.replace(samples, labels=None, class_names=())
    how = {"quantile": 0.9, "counts": (1, 2), "bound": 0.0}
    found = CorrectUnits(judge, LAYERS, conditional=True, **how).explain(model, bare, runtime=RUNTIME)
    assert found.chosen is not None
    assert "the bound held nothing back" in found.summary()["change of samples that were fine"]
    told = CorrectUnits(judge, LAYERS, **{**how, "bound": 0.2}).explain(model, bare, runtime=RUNTIME)
    assert "the bound is 20.00%" in told.summary()["change of samples that were fine"]


def test_images_of_another_generator_are_told():
    model, judge, samples = given(60)
    method = CorrectUnits(judge, LAYERS, quantile=0.9, counts=(1,), strengths=(0.0,))
    with pytest.warns(GenxaiWarning, match="makes other images of the samples' latents"):
        method.explain(model, dataclasses.replace(samples, images=-samples.images), runtime=RUNTIME)
    small = dataclasses.replace(samples, images=samples.images[:, :, :4, :4], masks=samples.masks[:, :, :4, :4])
    with pytest.raises(InputError, match=r"the images are \[1, 4, 4\], the model makes \[1, 8, 8\]"):
        method.explain(model, small, runtime=RUNTIME)


def test_masks_that_mark_nothing_are_told():
    model, judge, samples = given(60)
    method = CorrectUnits(judge, LAYERS, quantile=0.9, bound=0.2, counts=(1,), strengths=(0.0,))
    rows = samples.labels.nonzero()[:, 0]
    some = samples.masks.clone()
    some[rows[::2]] = False
    found = method.explain(model, dataclasses.replace(samples, masks=some), runtime=RUNTIME)
    scored = [row for row in rows.tolist() if row in split(samples.labels == 1, 0.5, RUNTIME.seed)[0]]
    empty = sum(not bool(some[row].any()) for row in scored)
    assert 0 < empty < len(scored)
    assert found.notes["masks"] == f"given, empty for {empty} of {len(scored)} broken samples"
    with pytest.warns(GenxaiWarning, match=r"no mask \(given\) marks anything"):
        method.explain(model, dataclasses.replace(samples, masks=some & False), runtime=RUNTIME)


def test_fields_that_do_not_fit_are_refused():
    found, *_ = corrected()
    for wrong in ({"rates": found.rates[1:]}, {"chosen": 10_000}, {"kept": None}, {"defects": found.defects[:0]}):
        with pytest.raises(ExplainerError):
            dataclasses.replace(found, **wrong)
