"""explainer/artifact-units: planted truth, what it is made of, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from genxai_correction import defects, judging, masks
from genxai_correction.artifact_units import ArtifactUnitScores
from genxai_correction.causal import ablation_effects
from genxai_correction.scoring import ArtifactUnits

import genxai_core as gx
from genxai_core import Explanation, Runtime, Samples, units
from genxai_core.errors import BadParameter, ExplainerError, GenxaiWarning, InputError

bench = pytest.importorskip("genxai_bench.tasks.artifacts")

RUNTIME = Runtime(device="cpu", quiet=True)


def problem(seed: int = 0, **given):
    return bench.PlantedArtifacts(**given).problem(seed)


def scored(case, masks="given", **more) -> ArtifactUnitScores:
    method = ArtifactUnits(masks=masks, **{**case.decided, **more})
    return method.explain(case.model, case.inputs, runtime=RUNTIME)


def planted(case) -> set[tuple[str, int]]:
    return {(layer, unit) for layer, found in case.truth["stamps"].items() for unit in found}


def of_kind(case, kind: str) -> set[tuple[str, int]]:
    roles = case.truth["roles"]
    return {(layer, unit) for layer, found in roles.items() for unit, role in enumerate(found) if role.kind == kind}


@pytest.fixture(scope="module")
def case():
    return problem()


@pytest.fixture(scope="module")
def result(case) -> ArtifactUnitScores:
    return scored(case)


# -- the planted truth ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("given", [{}, {"overlap": True}, {"spread": True}, {"overlap": True, "spread": True}])
def test_the_units_that_stamp_are_found_and_no_others(given: dict[str, bool], seed: int) -> None:
    case = problem(seed, **given)
    found = scored(case)
    truth = planted(case)
    ranked = found.ranking("artifact")
    assert set(found.causes()) == truth  # precision = recall = 1
    by_both = [s for s in ranked if (s.layer, s.unit) in set(found.causes(0.0))]
    by_both.sort(key=lambda s: s.score * float(found.effects[s.layer][s.unit]))
    assert {(s.layer, s.unit) for s in by_both[: len(truth)]} == truth
    # of what was planted beside them only shadows, and with overlap the concept below, score as high
    least = min(s.score for s in ranked if (s.layer, s.unit) in truth)
    assert least > 0.3
    higher = {(s.layer, s.unit) for s in ranked if s.score >= least} - truth
    concept = {
        (layer, unit)
        for layer, roles in case.truth["roles"].items()
        for unit, role in enumerate(roles)
        if role.kind == "cause" and role.concept == 0 and given.get("overlap")
    }
    assert higher - of_kind(case, "shadow") <= concept
    assert all(float(found.scores[layer][unit, 0]) < 0.05 for layer, unit in of_kind(case, "noise"))


@pytest.mark.parametrize("seed", range(3))
def test_shadows_coincide_and_the_effect_tells_them_apart(seed: int) -> None:
    case = problem(seed)
    found = scored(case)
    shadows = of_kind(case, "shadow")
    assert shadows
    for layer, unit in shadows:
        assert found.scores[layer][unit] > 0.4  # as high as the best that stamp
        assert float(found.effects[layer][unit].abs()) < 1e-6
    assert shadows <= set(found.coinciding(0.3))
    assert not shadows & set(found.causes(0.0))
    for layer, unit in planted(case):
        assert found.effects[layer][unit] < -0.02
        assert found.effect_intervals[layer][unit, 1] < found.effects[layer][unit] + 0.01


@pytest.mark.parametrize("seed", range(3))
def test_by_grad_cam_masks_of_this_judge_scores_are_low_and_causes_are_found_all_the_same(seed: int) -> None:
    # the judge is a matched filter, whose Grad-CAM is a spot of a few pixels: IoU with the true mask from 0.05 to 0.11
    case = problem(seed)
    found = scored(case, masks=masks.GRADCAM)
    broken = case.inputs[(case.inputs.labels == 1).nonzero()[:, 0].tolist()]
    spots = masks.artifact_masks(masks.GRADCAM, case.decided["classifier"], broken, 1)
    both = (spots & broken.masks).flatten(1).sum(1)
    assert 0.04 < float((both / (spots | broken.masks).flatten(1).sum(1)).mean()) < 0.12
    truth = planted(case)
    assert set(found.causes()) == truth
    first = [(s.layer, s.unit) for s in found.ranking("artifact")]
    place = max(first.index(unit) for unit in truth)
    assert place < 12  # of 32 units, by the score alone
    assert all(found.scores[layer][unit] > 0.015 for layer, unit in truth)
    assert all(found.scores[layer][unit] < 0.15 for layer, unit in truth)


def test_units_that_stand_in_for_each_other_have_no_effect_alone_but_score() -> None:
    case = problem(artifacts=6)
    found = scored(case)
    assert found.causes() == []
    assert planted(case) <= set(found.coinciding(0.3))
    assert (
        found.summary()["units that cause"]
        == f"none of {sum(len(found.scores[layer]) for layer in found.layers)} alone"
    )


# -- what it is made of -----------------------------------------------------------------------------------------------


def test_scores_effects_and_rates_are_those_of_the_parts(case, result: ArtifactUnitScores) -> None:
    samples, judge = case.inputs, case.decided["classifier"]
    rows = (samples.labels == 1).nonzero()[:, 0]
    levels = defects.artifact_thresholds(case.model, samples.latents, result.layers, RUNTIME)
    ious = defects.sample_ious(case.model, samples.latents[rows], samples.masks[rows], levels, RUNTIME)
    scores, ends = defects.defective_scores(ious)
    with torch.no_grad(), units.record(case.model, result.layers) as seen:
        case.model(samples.latents)
    for layer in result.layers:
        assert torch.equal(result.thresholds[layer], levels[layer])
        assert torch.allclose(result.scores[layer][:, 0], scores[layer], atol=1e-12)
        assert torch.allclose(result.intervals[layer][:, 0], ends[layer], atol=1e-12)
        changes = ablation_effects(case.model, samples.latents[rows], judge, 1, layer, RUNTIME)
        assert torch.allclose(result.effects[layer], changes.mean(1), atol=1e-9)
        half = 1.96 * changes.std(1) / len(rows) ** 0.5
        assert torch.allclose(result.effect_intervals[layer][:, 0], changes.mean(1) - half, atol=1e-9)
        large = torch.nn.functional.interpolate(seen[layer], size=(32, 32), mode="bilinear", align_corners=False)
        active = (large > levels[layer][:, None, None]).flatten(2).any(2)
        assert torch.equal(result.rates[layer], active.double().mean(0))
    assert torch.equal(result.images, samples.images[rows][:8])
    assert torch.equal(result.masks, samples.masks[rows][:8])
    assert result.notes["broken samples"] == len(rows) == 12
    assert result.notes["broken"] == "by their labels"


def test_without_labels_the_classifier_says_which_are_broken(case, result: ArtifactUnitScores) -> None:
    bare = replace(case.inputs, labels=None, class_names=())
    found = ArtifactUnits(**case.decided).explain(case.model, bare, runtime=RUNTIME)
    assert found.notes["broken"] == "P(artifact) > 0.5"
    assert found.notes["masks"] == "given"  # one of the samples' masks is named artifact
    assert all(torch.equal(found.scores[layer], result.scores[layer]) for layer in result.layers)
    other = replace(bare, concepts=("stamp",))
    by_cam = ArtifactUnits(causal=False, **case.decided).explain(case.model, other, runtime=RUNTIME)
    assert by_cam.notes["masks"] == "explainer/cam"
    assert not by_cam.effects
    same = ArtifactUnits(**case.decided).explain(case.model, bare, target=1, runtime=RUNTIME)
    assert torch.equal(same.effects["layer1"], found.effects["layer1"])


def test_batches_do_not_matter(case, result: ArtifactUnitScores) -> None:
    method = ArtifactUnits(masks="given", **case.decided)
    found = method.explain(case.model, case.inputs, runtime=Runtime(device="cpu", quiet=True, batch_size=9))
    for layer in result.layers:
        assert torch.allclose(found.scores[layer], result.scores[layer], atol=1e-3)
        assert torch.allclose(found.effects[layer], result.effects[layer], atol=1e-6)


def test_thresholds_come_from_as_many_samples_as_asked(case, result: ArtifactUnitScores) -> None:
    found = scored(case, causal=False, threshold_samples=10)
    levels = defects.artifact_thresholds(case.model, case.inputs.latents[:10], result.layers, RUNTIME)
    for layer in result.layers:
        assert torch.equal(found.thresholds[layer], levels[layer])
        assert not torch.equal(found.thresholds[layer], result.thresholds[layer])
    assert found.notes["threshold"] == "top 0.005 of upsampled values of 10 samples"


def test_only_the_best_units_are_switched_off_if_so_asked(case, result: ArtifactUnitScores) -> None:
    found = scored(case, causal_units=5)
    for layer in found.layers:
        known = found.checked[layer]
        assert not found.effects[layer][~known].any()
        assert int(known.sum()) == 5
        best = result.scores[layer][:, 0].argsort(descending=True, stable=True)[:5]
        assert set(known.nonzero()[:, 0].tolist()) == set(best.tolist())
        assert torch.allclose(found.effects[layer][known], result.effects[layer][known], atol=1e-6)
    rows = found.table()
    assert sum(row["causes"] is None for row in rows) == 22
    assert all((row["effect"] is None) == (row["causes"] is None) for row in rows)
    assert set(found.causes()) == planted(case)


def test_low_activation_needs_no_labels_no_masks_and_no_classifier(case, result: ArtifactUnitScores) -> None:
    bare = Samples(case.inputs.images, case.inputs.latents, value_range=(-1.0, 1.0))
    found = ArtifactUnits(layers=result.layers, method="low-activation").explain(case.model, bare, runtime=RUNTIME)
    assert not found.effects
    assert found.images is None
    for layer in found.layers:
        assert torch.equal(found.rates[layer], result.rates[layer])
        assert torch.allclose(found.scores[layer][:, 0], 1 - result.rates[layer])
    rare = found.rare()
    assert rare
    assert all(found.rates[layer][unit] <= 0.3 for layer, unit in rare)
    assert of_kind(case, "shadow") <= set(found.rare(0.31))  # active in some of the 12 of 40 that are broken
    checked = scored(case, method="low-activation")
    assert set(checked.causes()) == planted(case)
    assert found.notes["broken"] == "not asked"
    (section,) = found.report_sections()
    assert section.text == "The 1 − activation rate of each unit over 40 samples, broken or not."
    assert "40 samples, broken or not. Effects are over 12 of them" in next(checked.report_sections()).text


def test_masks_without_a_pixel_are_counted(case, result: ArtifactUnitScores) -> None:
    assert "empty masks" not in result.notes
    masks = case.inputs.masks.clone()
    masks[case.inputs.labels.nonzero()[:5, 0]] = False
    found = ArtifactUnits(masks="given", causal=False, layers=result.layers).explain(
        case.model, replace(case.inputs, masks=masks), runtime=RUNTIME
    )
    assert found.notes["empty masks"] == "5 of 12"
    assert "Masks without a pixel: 5 of 12" in next(found.report_sections()).text


def test_a_unit_at_the_cut_coincides_and_one_that_was_not_checked_does_not(case) -> None:
    found = scored(case, causal_units=5)
    layer, unit = found.coinciding(0.0)[0]
    at = float(found.scores[layer][unit, 0])
    assert (layer, unit) in found.coinciding(at)
    assert (layer, unit) not in found.coinciding(at + 1e-9)
    of = {(layer, unit) for layer in found.layers for unit in found.checked[layer].nonzero()[:, 0].tolist()}
    assert set(found.causes(-1.1)) == of


def test_where_no_unit_scores_none_is_said_to_coincide(result: ArtifactUnitScores) -> None:
    nothing = replace(result, scores={layer: values * 0 for layer, values in result.scores.items()})
    assert nothing.summary()["units that coincide"] == "none: no unit has a score"
    assert result.summary()["units that coincide"].endswith("with at least half the best score, without an effect")


# -- the result -------------------------------------------------------------------------------------------------------


def test_the_result_is_saved_shown_and_tabulated(result: ArtifactUnitScores, case, tmp_path) -> None:
    loaded = Explanation.load(result.save(tmp_path / "scores"))
    assert isinstance(loaded, ArtifactUnitScores)
    assert loaded.causes() == result.causes()
    assert torch.equal(loaded.masks, result.masks)
    row = next(row for row in result.table() if (row["layer"], row["unit"]) == result.causes()[0])
    assert row["causes"] is True
    assert row["effect low"] <= row["effect"] <= row["effect high"] < 0
    assert row["low"] <= row["score"] <= row["high"]
    assert 0 < row["activation rate"] <= 1
    assert result.causes(layer="layer1") == [u for u in result.causes() if u[0] == "layer1"]
    assert [result.effects[layer][unit] for layer, unit in result.causes()] == sorted(
        result.effects[layer][unit] for layer, unit in result.causes()
    )
    assert set(result.figures()) == {"units", "examples"} <= set(result.captions)
    first, second = result.report_sections()
    assert {(r["layer"], r["unit"]) for r in first.table} == planted(case)
    assert of_kind(case, "shadow") <= {(r["layer"], r["unit"]) for r in second.table}
    assert "layer" in result.summary()["units that cause"]
    plain = replace(result, effects={}, effect_intervals={}, checked={})
    assert plain.plot() is not None
    assert len(list(plain.report_sections())) == 1
    with pytest.raises(ExplainerError, match="no effects were measured"):
        plain.causes()


def test_a_unit_causes_if_all_of_its_interval_lies_below(result: ArtifactUnitScores) -> None:
    layer, unit = result.coinciding(0.3)[0]
    for ends, least, causes in (
        ((-0.5, 0.3), 0.0, False),
        ((-0.5, -0.01), 0.0, True),
        ((-0.5, -0.01), 0.02, False),
        ((0.01, 0.5), 0.0, False),
    ):
        changed = {name: values.clone() for name, values in result.effect_intervals.items()}
        changed[layer][unit] = torch.tensor(ends)
        other = replace(result, effect_intervals=changed)
        assert ((layer, unit) in other.causes(least)) is causes
        assert ((layer, unit) in other.coinciding(0.3, least)) is not causes
    unseen = {name: values.clone() for name, values in result.checked.items()}
    unseen[layer][unit] = False
    assert (layer, unit) not in replace(result, checked=unseen).coinciding(0.3)


def test_results_that_do_not_fit_are_refused(result: ArtifactUnitScores) -> None:
    effects, ends = dict(result.effects), dict(result.effect_intervals)
    for wrong, said in (
        ({"effects": {**effects, "layer1": effects["layer1"][:3]}}, r"effects\['layer1'\]"),
        ({"effects": {}}, "give each layer"),
        ({"effect_intervals": {**ends, "layer1": ends["layer1"][:, :1]}}, "effect_intervals"),
        ({"checked": {}}, "and checked"),
        ({"rates": {"layer9": effects["layer1"]}}, "there are no scores"),
        ({"masks": None}, "with masks"),
        ({"masks": result.masks[:2]}, "with masks"),
    ):
        with pytest.raises(ExplainerError, match=said):
            replace(result, **wrong)


# -- what it refuses --------------------------------------------------------------------------------------------------


def test_what_is_missing_is_told(case) -> None:
    samples, layers = case.inputs, ("layer1",)
    bare = replace(samples, labels=None, class_names=())

    def explain(inputs, **given):
        ArtifactUnits(**{"causal": False, "layers": layers, **given}).explain(case.model, inputs, runtime=RUNTIME)

    for inputs, given, said in (
        (replace(samples, latents=None), {}, "have no latents"),
        (replace(samples, latents=samples.latents[:, :4]), {}, "the model takes"),
        (replace(samples, latents=samples.latents / 0), {}, "NaN or infinity"),
        (replace(samples, labels=samples.labels * 0), {}, "none of 40 samples is broken"),
        (bare, {}, "a classifier must say"),
        (bare, {"classifier": case.decided["classifier"], "above": 0.999999}, "none of 40 samples is broken"),
        (replace(samples, masks=None, concepts=()), {}, "need a classifier"),
        (replace(samples, masks=samples.masks & False), {}, "masks of all broken samples are empty"),
        (samples, {"layers": ("layer7",)}, "no such layer"),
        (replace(samples, images=samples.images[:, :1]), {}, "give samples of this generator"),
    ):
        with pytest.raises(InputError, match=said):
            explain(inputs, **given)
    with pytest.raises(InputError, match="only logit is named 'real'"):
        explain(samples, classifier=gx.create("discriminator/dcgan", size=16, channels=3))
    with pytest.raises(InputError, match="target 1 is a class of no classifier"):
        ArtifactUnits(causal=False, layers=layers).explain(case.model, samples, target=1, runtime=RUNTIME)
    later = samples.latents.clone()
    later[10:] = later[10:].flip(0)  # the first batch of ten is of its latents
    with pytest.warns(GenxaiWarning, match="makes other images") as told:
        ArtifactUnits(causal=False, layers=layers).explain(
            case.model, replace(samples, latents=later), runtime=Runtime(device="cpu", quiet=True, batch_size=10)
        )
    assert len(told) == 1


def test_bad_parameters_are_told() -> None:
    for given, said in (
        ({"layers": ()}, "at least one"),
        ({"layers": ("a", "a")}, "each once"),
        ({"mask_threshold": 1.0}, "mask_threshold"),
        ({"above": -0.1}, "above"),
        ({"quantile": 1.0}, "quantile"),
        ({"threshold_samples": 0}, "threshold_samples"),
        ({"causal_units": 0}, "causal_units"),
        ({"examples": -1}, "examples"),
        ({"method": "other"}, "method"),
        ({"causal": True}, "give a classifier"),
    ):
        with pytest.raises(BadParameter, match=said):
            gx.create("explainer/artifact-units", **{"causal": False, **given})


def test_judges_and_generators_are_left_as_they_were(case) -> None:
    judge = case.decided["classifier"]
    before = {k: v.clone() for k, v in [*judge.state_dict().items(), *case.model.state_dict().items()]}
    judge.train()
    scored(case, causal_units=1)
    assert judge.training
    judge.eval()
    after = [*judge.state_dict().items(), *case.model.state_dict().items()]
    assert all(torch.equal(before[k], v) for k, v in after)
    assert judging.broken(case.inputs, judge, None).sum() == 12
