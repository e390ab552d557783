"""What a correction chooses, shows and warns of, by what it does to images."""

import dataclasses

import pytest
import torch
from corner_chain import LAYERS, RUNTIME, Chain, Corner, corrected, given
from genxai_correction import strategies
from genxai_correction.choosing import split
from genxai_correction.correcting import CorrectUnits
from genxai_correction.correction import Correction
from genxai_correction.defects import artifact_thresholds
from genxai_correction.masks import artifact_masks
from genxai_correction.proof_intervals import of_difference

import genxai_core as gx
from genxai_core import Samples, Spec, UnitEdits
from genxai_core.errors import ExplainerError, GenxaiWarning, InputError
from genxai_core.testing.fixtures import with_plugin


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


def test_what_a_wider_bound_would_reach_is_told():
    found, *_ = corrected()
    tight = float(found.collaterals[found.rates == found.unedited].min())
    none = dataclasses.replace(found, chosen=None, bound=tight)
    assert int(none.allowed.sum()) == 1
    lowest = found.rates == found.rates.min()
    assert int(lowest.sum()) > 1
    least = float(found.collaterals[lowest].min())
    said = f"lowers the artifact rate; beyond it one reaches {float(found.rates.min()):.1%} at {least:.2%}"
    assert none.summary()["correction"].endswith(said)


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


@pytest.mark.parametrize("masks", ["given", Spec("explainer/saliency")], ids=["given", "saliency"])
def test_units_are_scored_by_the_samples_that_are_not_held_out_as_is_asked(masks):
    class Ramp(Corner):
        """Looks at columns the more the further left they are, so that maps have values between."""

        def forward(self, images):
            return super().forward(images * torch.linspace(2, -1.5, 8))

    model, _, samples = given(60)
    judge = Ramp().eval()
    how = {"strategy": "one-layer", "quantile": 0.8, "holdout": 0.3, "mask_threshold": 0.6, "masks": masks}
    runtime = RUNTIME.with_(seed=2)
    found = CorrectUnits(judge, LAYERS, causal=False, bound=0.2, **how).explain(model, samples, runtime=runtime)
    rows, held = split(samples.labels == 1, 0.3, 2)
    bad = samples[[row for row in rows.tolist() if samples.labels[row] == 1]]
    inside = artifact_masks(masks, judge, bad, 1, 0.6, RUNTIME)
    assert masks == "given" or not torch.equal(inside, artifact_masks(masks, judge, bad, 1, 0.1, RUNTIME))
    thresholds = artifact_thresholds(model, samples.latents[rows], LAYERS, RUNTIME, 0.8)
    plain, _ = strategies.scorer(model, bad.latents, inside, thresholds, RUNTIME)
    assert len(found) > 0
    assert found.defects.tolist() == plain[found.layers[0]][found.units].tolist()
    assert found.notes["samples"] == f"{len(rows)} to score units, of which {len(bad)} are broken"
    assert found.notes["held out"] == f"{len(held)}, of which {int(samples.labels[held].sum())} are broken"
    with torch.no_grad():
        called = judge(samples.images[held]).softmax(1)[:, 1] > 0.5
    assert found.unedited == pytest.approx(float(called.double().mean()))


def test_what_counts_as_broken_is_above_what_is_asked():
    model, judge, samples = given(60)
    bare = dataclasses.replace(samples, labels=None, class_names=())
    method = CorrectUnits(judge, LAYERS, quantile=0.9, above=0.9, bound=1.0, conditional=True, examples=2)
    found = method.explain(model, bare, runtime=RUNTIME)
    with torch.no_grad():
        chances = judge(samples.images).softmax(1)[:, 1]
    broken = chances > 0.9
    assert 0 < int(broken.sum()) < int((chances > 0.5).sum())
    rows, held = split(broken, 0.5, RUNTIME.seed)
    assert found.notes["samples"] == f"{len(rows)} to score units, of which {int(broken[rows].sum())} are broken"
    assert found.unedited == pytest.approx(float(broken[held].double().mean()))
    assert found.condition == {"target": 1, "above": 0.9}
    assert [len(kept) for kept in (found.broken, found.corrected, found.fine, found.kept)] == [2, 2, 2, 2]


def test_no_more_units_are_edited_than_are_checked():
    for checked in (1, 3):
        found, *_ = corrected(checked=checked, counts=(4,))
        each = [found.layers.count(layer) for layer in LAYERS]
        assert max(each) <= checked
    assert max(each) > 1


def test_candidates_that_do_the_same_are_tried_once():
    found, *_ = corrected(checked=2, counts=(2, 5, 50), strengths=(0.0, 0.5, 0.5), strategy="one-layer")
    assert len(found.tried) <= 2 * len(LAYERS)
    assert len({(row["layers"], row["units"], row["strength"]) for row in found.table()}) == len(found.tried)


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


def test_a_correction_knows_what_selected_it(tmp_path):
    class Sampled(Chain):
        def sample(self, n, seed, labels=None, start=0):
            latents = self.sample_latents(n, seed, start)
            with torch.no_grad():
                return Samples(self(latents), latents, value_range=self.value_range)

    def proof(edits, judge):
        method = gx.create("explainer/correction-proof", edits=edits, judge=judge, samples=20, draws=1)
        return method.explain(Sampled().eval(), runtime=RUNTIME)

    found, *_ = corrected()
    for edits in (found, Correction.load(found.save(tmp_path / "fix")), found[:1]):
        with pytest.raises(InputError, match="the weights of the classifier that selected the units"):
            proof(edits, Corner())
    other = Corner()
    with torch.no_grad():
        other.gain += 1
    assert proof(found, other).notes["judge"] == "not the weights of what selected the units"
    bare = UnitEdits(found.layers, found.units, found.factors)
    assert proof(bare, Corner()).notes["judge"] == "taken on trust: give selected_by"
