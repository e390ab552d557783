"""A proof against a slow, literal one, and its refusals, on a generator of four units that are known."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from genxai_correction import judging
from genxai_correction.proof import Proof
from genxai_correction.proof_controls import mean_activity, most_active, random_units
from genxai_correction.proof_intervals import of_difference, of_mean, of_share
from genxai_correction.proving import ACTIVITY_SAMPLES, START, CorrectionProof
from torch import Tensor, nn

from genxai_core import Attribution, Discriminator, Explainer, Explanation, Runtime, Samples, Spec, UnitEdits, create
from genxai_core.errors import BadParameter, ExplainerError, InputError, MissingCapability
from genxai_core.report import figures_of, summary_of
from genxai_core.testing.data import PatchDataset
from genxai_core.testing.models import LinearDiscriminator, LinearGenerator, PatchDiscriminator

RUNTIME = Runtime(device="cpu", seed=3, batch_size=16, quiet=True)
TRUE = UnitEdits.ablate({"layers": [2]})
"""The judge calls a sample broken where latent 2, which unit 2 of four draws, is below -1/4."""


def judge() -> PatchDiscriminator:
    return named(PatchDiscriminator(sign=-1.0))


def named(found: Discriminator) -> Discriminator:
    """Say that the one logit of a judge, which is called real otherwise, is that of the artifact."""
    found.class_names = ("artifact",)
    return found


def other_judge() -> PatchDiscriminator:
    """Broken where latent 1 is above -1/4."""
    return PatchDiscriminator(patch=(0, 8, 4))


class Where(Explainer):
    """Maps [N, H, W]: 1 in the patch that the judge looks at, a little less than 0.3 elsewhere."""

    explains, accepts, returns = "discriminator", "images", Attribution

    def _explain(self, model, images, target):
        return Attribution(maps=(0.29 + 0.71 * model.inside.float()).repeat(len(images), 1, 1), target=target)


def proof(
    edits: UnitEdits = TRUE, by: Discriminator | Spec | None = None, runtime: Runtime = RUNTIME, **given
) -> Proof:
    method = CorrectionProof(edits, by or judge(), **{"samples": 60, "draws": 2, "pairs": 5, **given})
    return method.explain(LinearGenerator().eval(), runtime=runtime)


def literal(edits: UnitEdits, arms: dict[str, UnitEdits], asked: Discriminator | None, n: int) -> dict[str, Tensor]:
    """Images of every arm, one sample at a time, by generator/edited."""
    model = LinearGenerator().eval()
    found = {"uncorrected": torch.cat([model.sample(1, 3, start=START + i).images for i in range(n)])}
    for name, some in {"corrected": edits, **arms}.items():
        edited = create("generator/edited", base=model, edits=some, judge=asked)
        found[name] = torch.cat([edited.sample(1, 3, start=START + i).images for i in range(n)])
    return found


def arms_of(edits: UnitEdits, n: int) -> dict[str, UnitEdits]:
    model = LinearGenerator().eval()
    active = mean_activity(model, ["layers"], 3, START + n, n, 7)
    drawn = {f"random {i + 1}": random_units(edits, {"layers": 4}, 3, i) for i in range(2)}
    return {**drawn, "most active": most_active(edits, active)}


@pytest.mark.parametrize("condition", [None, {"target": 0, "above": 0.7}])
def test_every_figure_is_that_of_a_loop(condition):
    edits = UnitEdits(("layers", "layers"), torch.tensor([2, 0]), torch.tensor([0.0, 0.5]), condition=condition)
    asked = other_judge() if condition else None
    real, extractor = PatchDataset(50), LinearDiscriminator()
    found = proof(edits, condition_judge=asked, real=real, features=extractor, masks=Where())
    images = literal(edits, arms_of(edits, 60), asked, 60)
    assert found.arms == tuple(images)
    with torch.no_grad():
        chances = {arm: judge()(some).sigmoid()[:, 0] for arm, some in images.items()}
    broken = {arm: p > 0.5 for arm, p in chances.items()}
    fine = ~broken["uncorrected"]
    assert 5 < int(fine.sum()) < 55
    plain = images["uncorrected"]
    rows = {arm: extractor.features(some)[fine].double() for arm, some in images.items()}
    apart = torch.stack([(rows["uncorrected"][i] - rows["uncorrected"][i - 1]).norm() for i in range(int(fine.sum()))])
    outside = ~PatchDiscriminator().inside
    for i, (arm, some) in enumerate(images.items()):
        assert torch.allclose(found.probabilities[i], chances[arm].double(), atol=1e-6)
        change = (some - plain).abs().double() / 2
        expected = {
            "artifact rate": of_share(broken[arm]),
            "newly broken": of_share(broken[arm][fine]),
            "pixel change": of_mean(change[fine].mean((1, 2, 3))),
            "feature change": of_mean((rows[arm] - rows["uncorrected"]).norm(dim=1) / apart.mean()),
            "change outside masks": of_mean(change[~fine][:, 0, outside].mean(1)),
        }
        for use, names in (("metric/kid", ["kid"]), ("metric/fid", ["fid"]), ("metric/precision-recall", ["recall"])):
            told = create(use, extractor=extractor).measure(
                real=real[:], generated=Samples(some, value_range=(-1.0, 1.0))
            )
            expected |= {name: (told[name], told[f"{name}_low"], told[f"{name}_high"]) for name in names}
        for name, figure in expected.items():
            assert found.value(name, arm) == pytest.approx(figure, rel=1e-4, abs=1e-5), (arm, name)
        assert float(found.changes[i]) == pytest.approx(of_difference(broken[arm], broken["uncorrected"])[0])
        change_ends, against_ends = found.change_intervals[i].tolist(), found.against_intervals[i].tolist()
        assert change_ends == pytest.approx(of_difference(broken[arm], broken["uncorrected"])[1:])
        assert float(found.against[i]) == pytest.approx(of_difference(broken["corrected"], broken[arm])[0])
        assert against_ends == pytest.approx(of_difference(broken["corrected"], broken[arm])[1:])
    first = (~fine).nonzero()[:5, 0]
    assert found.numbers.tolist() == (START + first).tolist()
    assert torch.allclose(found.before, plain[first], atol=1e-6)
    assert torch.allclose(found.after, images["corrected"][first], atol=1e-6)
    assert not [name for name in found.notes if "not measured" in name]


def test_a_condition_leaves_the_other_samples_as_they_were():
    edits = UnitEdits.ablate({"layers": [0, 1, 2, 3]}, condition={"target": 0, "above": 0.7})
    found = proof(edits, condition_judge=other_judge(), pairs=60)
    with torch.no_grad():
        chosen = other_judge()(found.before).sigmoid()[:, 0] > 0.7
    assert 0 < int(chosen.sum()) < len(chosen)
    assert torch.equal(found.after[~chosen], found.before[~chosen])
    assert torch.allclose(found.after[chosen], torch.tensor(0.05))
    assert found.notes["condition"] == "class 0 above 0.7"


def test_the_verdict_of_the_right_unit():
    found = proof(samples=100, runtime=RUNTIME.with_(seed=1))
    assert found.value("artifact rate") == (0, 0, pytest.approx(0.037, abs=1e-3))
    others = [arm for arm in found.arms[2:] if found.value("artifact rate", arm)[0] > 0]
    assert others  # where chance, or activity, picks the right unit too, nothing is better than that
    assert set(found.not_beaten) == set(found.controls) - set(others)
    assert found.lowers
    assert found.better == (not found.not_beaten)


def test_what_is_no_better_than_its_controls_says_so():
    found = proof(UnitEdits.ablate({"layers": [0, 1, 2, 3]}))  # the controls edit the same units, so do as much
    assert found.lowers
    assert not found.better
    assert found.not_beaten == found.controls == ("random 1", "random 2", "most active")
    assert found.verdict == ("lowers the artifact rate; no better than the controls (random 1, random 2, most active)")
    assert found.summary()["verdict"] == found.verdict
    assert found.verdict in summary_of(found)
    assert found.verdict in next(iter(found.report_sections())).text
    useless = proof(UnitEdits.ablate({"layers": [3]}))
    assert found.notes["units that controls share with it"] == "random 1 4, random 2 4, most active 4"
    assert useless.verdict.startswith("does not lower the artifact rate; no better than the controls (")


def test_what_raises_the_artifact_rate_says_so():
    worse = UnitEdits(("layers",), torch.tensor([2]), torch.tensor([0.0]), torch.tensor([-2.0]))
    found = proof(worse)
    assert found.value("artifact rate")[0] == 1
    assert found.verdict.startswith("raises the artifact rate; no better than the controls (")
    assert found.value("newly broken")[0] == 1
    assert "newly broken" in found.worse()


def test_an_edit_of_nothing_and_an_unbroken_generator_are_told():
    empty = proof(UnitEdits.ablate({}))
    assert empty.verdict == "nothing is edited, so nothing changes"
    assert not empty.better
    assert proof(UnitEdits.ablate({}), condition_judge=other_judge()).verdict == empty.verdict
    assert bool((empty.values == empty.values[0]).all())
    never = proof(above=0.99999)
    assert never.verdict == "no sample is broken uncorrected, so there is nothing to correct"
    assert never.before is None
    assert set(never.figures()) == {"arms"}


def test_what_cannot_be_measured_is_named_and_left_out():
    found = proof()
    assert found.measures == ("artifact rate", "newly broken", "pixel change")
    assert [name for name in found.notes if name.startswith("not measured")] == [
        "not measured: quality and diversity",
        "not measured: feature change",
        "not measured: change outside masks",
    ]
    all_broken = proof(above=1e-7, masks=Where())
    assert all_broken.measures == ("artifact rate", "change outside masks")
    assert all_broken.notes["not measured: pixel change"] == "fewer than two samples were fine"

    class Constant(nn.Module):
        def features(self, images):
            return torch.ones(len(images), 2)

    assert "all fine samples" in proof(features=Constant()).notes["not measured: feature change"]


def test_each_arm_is_made_once_and_each_image_read_once():
    made, read = [], []

    class Counting(LinearGenerator):
        def forward(self, latents):
            made.append(len(latents))
            return super().forward(latents)

    class Reading(LinearDiscriminator):
        def features(self, images):
            read.append(len(images))
            return super().features(images)

    method = CorrectionProof(TRUE, judge(), real=PatchDataset(70), features=Reading(), samples=40, draws=2)
    method.explain(Counting().eval(), runtime=RUNTIME)
    assert max(made) <= RUNTIME.batch_size
    assert sum(made) == 40 * 5 + min(ACTIVITY_SAMPLES, 40) + 1  # the arms, activity, and one to check the edits
    assert sum(read) == 40 * 5 + 40  # of the real images as many as samples
    assert max(read) <= RUNTIME.batch_size


def test_batches_change_nothing_and_the_seed_and_the_start_do():
    one, other = proof(), proof(runtime=RUNTIME.with_(batch_size=7))
    assert torch.allclose(one.probabilities, other.probabilities, atol=1e-6)
    assert torch.equal(proof().probabilities, one.probabilities)
    assert not torch.allclose(proof(runtime=RUNTIME.with_(seed=4)).probabilities, one.probabilities, atol=1e-3)
    later = proof(start=START + 20, samples=40)
    assert torch.allclose(later.probabilities[:2], one.probabilities[:2, 20:], atol=1e-6)


def test_the_judge_and_the_extractor_are_left_as_they_were():
    held, extractor = judge().train(), LinearDiscriminator().train()
    before = copy.deepcopy(held.state_dict())
    proof(by=held, features=extractor)
    assert held.training
    assert extractor.training
    assert all(p.requires_grad and p.grad is None for p in held.parameters())
    assert all(torch.equal(before[name], value) for name, value in held.state_dict().items())


def test_a_pair_is_never_chosen_and_the_figures_are_drawn(tmp_path):
    found = proof(features=LinearDiscriminator(), real=PatchDataset(40), pairs=23, samples=80)
    assert len(found.numbers) == 23
    assert set(figures_of(found)) == {"arms", "pairs"}
    assert set(found.captions) == {"arms", "pairs"}
    again = Explanation.load(found.save(tmp_path / "proof"))
    assert isinstance(again, Proof)
    assert again.table() == found.table()
    assert json.loads(json.dumps(again.summary())) == found.summary()
    assert len(json.loads(json.dumps(found.table()))) == len(found.arms) * len(found.measures)
    assert [row["arm"] for row in found.control_table()] == ["uncorrected", *found.controls]
    first, second = found.report_sections()
    assert set(first.table[0]) == {"measure", *found.arms}
    assert len(first.table) == len(found.measures)
    assert [row["arm"] for row in second.table] == ["uncorrected", *found.controls]
    assert proof(pairs=0).before is None


# -- refusals ---------------------------------------------------------------------------------------------------


class Named(Discriminator):
    class_names = ("a", "b")

    def forward(self, images):
        return images.new_zeros(len(images), 2)


class Wider(PatchDiscriminator):
    def __init__(self) -> None:
        super().__init__(sign=-1.0)
        named(self)
        self.more = nn.Linear(1, 1)


def test_the_judge_must_not_be_the_classifier_that_selected():
    same = judge()
    for selected_by in (same, judge()):
        with pytest.raises(InputError, match="the judge has the weights of the classifier that selected the units; "):
            proof(by=same, selected_by=selected_by)
    conditional = UnitEdits.ablate({"layers": [2]}, condition={"target": 0, "above": 0.5})
    with pytest.raises(InputError, match="the weights of the classifier that the condition asks"):
        proof(conditional, condition_judge=judge())
    assert proof(selected_by=Wider()).notes["judge"] == "not the weights of what selected the units"
    assert proof().notes["judge"] == "taken on trust: give selected_by"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"edits": UnitEdits.ablate({"layer": [2]})}, BadParameter, "did you mean 'layers'"),
        ({"edits": UnitEdits.ablate({"layers": [4]})}, BadParameter, "unit 4"),
        ({"edits": UnitEdits.ablate({"layers": [1]}, condition={"target": 0, "above": 0.5})}, BadParameter, "judge"),
        ({"condition_judge": other_judge()}, BadParameter, "no condition"),
        ({"edits": {"layers": [1]}}, InputError, "not UnitEdits"),
        ({"by": Named()}, InputError, "say which: target"),
        ({"by": PatchDiscriminator(sign=-1.0)}, InputError, "named 'real'"),
        ({"by": LinearGenerator()}, InputError, "not a Discriminator"),
        ({"features": nn.Identity()}, MissingCapability, "HasFeatures"),
        ({"features": LinearDiscriminator(32)}, InputError, "use one for their size"),
        ({"features": LinearDiscriminator(), "real": PatchDataset(20, size=32)}, InputError, "bring them to one size"),
        ({"masks": "given"}, InputError, "these samples have no masks"),
        ({"masks": CorrectionProof(TRUE, judge())}, InputError, "does not attribute"),
        ({"real": PatchDataset(20)}, ValueError, "give features"),
        ({"masks": "cam"}, ValueError, "masks 'cam'"),
        ({"samples": 9}, ValueError, "samples 9"),
        ({"start": -1}, ValueError, "start -1"),
        ({"draws": 0}, ValueError, "draws 0"),
        ({"pairs": -1}, ValueError, "pairs -1"),
        ({"above": 1.0}, ValueError, "above 1.0"),
        ({"mask_threshold": 1.0}, ValueError, "mask_threshold 1.0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(given, error, said):
    with pytest.raises(error) as caught:
        proof(**given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_target_names_the_artifact_class():
    method = CorrectionProof(TRUE, Named(), samples=10)
    found = method.explain(LinearGenerator().eval(), target=1, runtime=RUNTIME)
    assert bool((found.probabilities == 0.5).all())
    with pytest.raises(InputError, match="target 2 is none"):
        method.explain(LinearGenerator().eval(), target=2, runtime=RUNTIME)
    assert judging.artifact_class(judge()) == 0


def test_images_that_are_not_finite_are_refused():
    wild = UnitEdits(("layers",), torch.tensor([2]), torch.tensor([1.0]), torch.tensor([3e38]))
    model = LinearGenerator().eval()
    with torch.no_grad():
        model.to_image.weight.fill_(1e3)
    with pytest.raises(InputError, match="NaN or infinity"):
        CorrectionProof(wild, judge(), samples=10).explain(model, runtime=RUNTIME)


def test_a_proof_of_wrong_shapes_is_refused():
    found = proof()
    for wrong in (
        {"arms": ("corrected", "uncorrected", "a", "b", "c")},
        {"measures": ("kid", "artifact rate", "pixel change")},
        {"values": found.values[:-1]},
        {"intervals": found.intervals[..., 0]},
        {"changes": found.changes.float()[:-1]},
        {"against_intervals": found.against_intervals[:, :1]},
        {"probabilities": found.probabilities[0]},
        {"numbers": found.numbers[:-1]},
        {"after": found.after[:-1]},
        {"values": found.values.clone().fill_(torch.nan)},
    ):
        with pytest.raises(ExplainerError, match="correction proof"):
            dataclasses.replace(found, **wrong)
    with pytest.raises(ExplainerError, match="there is no 'kid'"):
        found.value("kid")


def test_of_many_real_images_as_many_are_taken_evenly_spaced():
    real, extractor = PatchDataset(90), LinearDiscriminator()
    found = proof(samples=30, real=real, features=extractor)
    generated = LinearGenerator().eval().sample(30, 3, start=START)
    told = create("metric/kid", extractor=extractor).measure(real=real[::3], generated=generated)
    assert found.value("kid", "uncorrected")[0] == pytest.approx(told["kid"], rel=1e-5)
    assert found.notes["real images"] == 30


def test_what_may_be_chance_is_neither_lower_nor_better():
    found = proof(UnitEdits.ablate({"layers": [0, 1, 2, 3]}))

    def said(change_high: float, against_high: float) -> Proof:
        changes, against = found.change_intervals.clone(), found.against_intervals.clone()
        changes[1], against[2:] = torch.tensor([-0.3, change_high]), torch.tensor([-0.3, against_high])
        less = torch.full_like(found.against, -0.1)
        return dataclasses.replace(
            found, changes=less, against=less, change_intervals=changes, against_intervals=against
        )

    assert said(-0.01, -0.01).better
    assert not said(-0.01, 0.01).better
    assert said(-0.01, 0.01).not_beaten == found.controls
    assert not said(0.01, -0.01).lowers
    assert said(0.01, -0.01).verdict == "does not lower the artifact rate"


def test_worse_is_what_lies_apart_on_the_wrong_side():
    found = proof(real=PatchDataset(40), features=LinearDiscriminator())
    ends = torch.tensor([0.4, 0.6]).double().repeat(*found.values.shape, 1)
    for name, wrong in (("kid", [0.61, 0.7]), ("recall", [0.3, 0.39]), ("pixel change", [0.61, 0.7])):
        at = found.measures.index(name)
        for pair in (wrong, [1.0 - end for end in reversed(wrong)], [0.5, 0.7], [0.3, 0.5]):
            changed = ends.clone()
            changed[1, at] = torch.tensor(pair).double()
            spoilt = name != "pixel change" and pair is wrong
            assert dataclasses.replace(found, intervals=changed).worse() == ([name] if spoilt else [])
