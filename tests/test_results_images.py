"""`Counterfactual` and `Inversion`: what they count and measure, and what they refuse."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from genxai_core import Counterfactual, Discriminator, Explainer, Explanation, Inversion, Runtime
from genxai_core.errors import ExplainerError


def counterfactual(**changes) -> Counterfactual:
    images = torch.zeros(3, 2, 4, 4)
    changed = images.clone()
    changed[0, 0, 0, 0] = 1.0  # one pixel, half of the range
    changed[1] = 2 / 255  # one step of an 8-bit image everywhere
    fields = {
        "images": images,
        "counterfactuals": changed,
        "target": torch.tensor([1, 2, 1]),
        "source": torch.tensor([0, 0, 2]),
        "logits_before": torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
        "logits_after": torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0]]),
        "realism": torch.tensor([0.5, 0.25, 1.0]),
        "failures": ("", "adversarial", ""),
        "class_names": ("cat", "dog", "cow"),
    }
    return Counterfactual(**{**fields, **changes})


def test_a_counterfactual_is_valid_where_the_target_has_the_largest_logit():
    found = counterfactual()
    assert found.valid.tolist() == [True, True, False]
    assert found.reasons == ("", "adversarial", "no flip")
    assert counterfactual(failures=None).reasons == ("", "", "no flip")
    assert counterfactual(failures=("", "", "identity")).reasons == ("", "", "identity")


def test_one_logit_decides_by_its_sign():
    one = {
        "logits_before": torch.tensor([[3.0], [-3.0], [0.0]]),
        "logits_after": torch.tensor([[-1.0], [0.5], [0.0]]),
        "target": torch.tensor([0, 1, 1]),
        "source": torch.tensor([1, 0, 0]),
        "class_names": ("real",),
    }
    found = counterfactual(**one)
    assert found.valid.tolist() == [True, True, False]  # a logit of 0 is not real
    before, after = found.probabilities()
    assert before.tolist() == pytest.approx([1 - 0.952574, 0.047426, 0.5], abs=1e-6)
    assert after.tolist() == pytest.approx([0.731059, 0.622459, 0.5], abs=1e-6)
    assert [row["target"] for row in found.table()] == ["not real", "real", "real"]
    assert counterfactual(**{**one, "class_names": ("fake", "real")}).class_name(0) == "fake"
    assert counterfactual(**{**one, "class_names": ()}).class_name(1) == "1"


def test_distances_are_shares_of_the_range():
    found = counterfactual().distance
    assert found["l1"].tolist() == pytest.approx([0.5 / 32, 1 / 255, 0], abs=1e-8)
    assert found["l2"].tolist() == pytest.approx([(0.25 / 32) ** 0.5, 1 / 255, 0], abs=1e-8)
    assert found["linf"].tolist() == pytest.approx([0.5, 1 / 255, 0], abs=1e-8)
    wider = counterfactual(value_range=[-2, 2])
    assert wider.value_range == (-2.0, 2.0)
    assert wider.distance["linf"].tolist() == pytest.approx([0.25, 0.5 / 255, 0], abs=1e-8)


def test_a_pixel_counts_once_and_only_beyond_one_step_of_8_bits():
    assert counterfactual().sparsity.tolist() == [1 / 16, 0, 0]
    two = torch.zeros(3, 2, 4, 4)
    two[0, :, 0, :2] = 2.2 / 255  # two pixels, in both channels
    assert counterfactual(counterfactuals=two).sparsity.tolist() == [2 / 16, 0, 0]


def test_the_table_tells_each_image():
    first, second, third = counterfactual().table()
    assert list(first)[:6] == ["sample", "source", "target", "p_before", "p_after", "valid"]
    assert list(first)[6:] == ["l1", "l2", "linf", "changed", "realism", "failure"]
    assert (first["source"], first["target"]) == ("cat", "dog")
    weights = torch.tensor([2.0, 0.0, 0.0]).exp()
    assert first["p_before"] == pytest.approx(float(weights[1] / weights.sum()))
    assert first["p_after"] == pytest.approx(float(weights[0] / weights.sum()))
    assert [row["failure"] for row in (first, second, third)] == ["", "adversarial", "no flip"]
    assert [row["realism"] for row in (first, second, third)] == [0.5, 0.25, 1.0]


def test_the_summary_counts_every_failure():
    said = counterfactual(failures=("", "adversarial", "identity")).summary()
    assert list(said.items())[:3] == [
        ("valid", "2 of 3"),
        ("failed (adversarial)", "1 of 3"),
        ("failed (identity)", "1 of 3"),
    ]
    assert said["mean change"] == "0.652 % of the range"  # (0.5/32 + 1/255 + 0) / 3
    assert said["pixels changed"] == "2.08 %"
    assert counterfactual()[[]].summary() == {"valid": "0 of 0"}


def test_an_integer_stands_for_all_and_rows_are_selected_and_joined():
    found = counterfactual(target=1, source=0)
    assert found.target.tolist() == [1, 1, 1]
    part = counterfactual()[1:]
    assert part.table() == [row | {"sample": i} for i, row in enumerate(counterfactual().table()[1:])]
    joined = Counterfactual.concat([counterfactual()[[2]], counterfactual()[:2]])
    assert joined.failures == ("", "", "adversarial")
    assert joined.target.tolist() == [1, 1, 2]
    assert len(joined) == 3


def test_joining_names_no_failure_where_the_method_named_none_and_keeps_those_it_named():
    unnamed = counterfactual(failures=None)
    joined = Counterfactual.concat([unnamed, counterfactual()])
    assert joined.failures == ("", "", "", "", "adversarial", "")
    assert joined.reasons == unnamed.reasons + counterfactual().reasons
    assert Counterfactual.concat([unnamed, unnamed]).failures is None


@pytest.mark.parametrize(
    "changes", [{"value_range": (0.0, 1.0)}, {"class_names": ("a", "b", "c")}, {"class_names": ()}]
)
def test_counterfactuals_in_other_ranges_or_of_other_classes_are_not_joined(changes):
    with pytest.raises(ExplainerError, match=f"differ in their {next(iter(changes))}"):
        Counterfactual.concat([counterfactual(), counterfactual(**changes)])


def inversion(**changes) -> Inversion:
    images = torch.zeros(2, 1, 3, 3)
    fields = {
        "images": images,
        "reconstructions": images + torch.tensor([0.25, 1.0]).view(2, 1, 1, 1),
        "latents": torch.tensor([[3.0, 4.0], [0.0, 0.0]]),
        "errors": torch.tensor([0.25, 1.0]),
        "failed": torch.tensor([False, True]),
        "history": torch.tensor([[1.0, 0.5, 0.25], [2.0, 1.5, 1.0]]),
        "notes": {"iterations": 3},
    }
    return Inversion(**{**fields, **changes})


def test_an_inversion_tells_errors_and_how_far_the_latents_went():
    first, second = inversion().table()
    assert first == {
        "sample": 0,
        "rmse": 0.25,
        "share_of_range": 0.125,
        "latent_norm": pytest.approx((25 / 2) ** 0.5),
        "steps": 3,
        "start": 1.0,
        "failed": False,
    }
    assert (second["failed"], second["latent_norm"]) == (True, 0.0)
    assert "steps" not in inversion(history=None).table()[0]
    assert inversion().summary() == {"failed": "1 of 2", "median error (RMSE)": 0.25}
    assert inversion(failed=torch.tensor([True, True])).summary() == {"failed": "2 of 2"}


def test_a_search_that_diverged_must_be_called_failed():
    diverged = {"errors": torch.tensor([0.25, float("nan")])}
    assert inversion(**diverged).table()[1]["rmse"] != inversion(**diverged).table()[1]["rmse"]
    with pytest.raises(ExplainerError, match="image 1 has an error of nan and is not called failed"):
        inversion(**diverged, failed=torch.tensor([True, False]))


@pytest.mark.parametrize("name", ["images", "reconstructions", "latents"])
def test_only_what_is_called_failed_may_not_be_finite(name):
    values = getattr(inversion(), name).clone()
    values.view(2, -1)[1, 0] = float("nan")  # of the second, which failed
    assert inversion(**{name: values}).table()[1]["failed"]
    with pytest.raises(ExplainerError, match=f"{name} hold NaN or infinity in row 0, which is not called failed"):
        inversion(**{name: values.flip(0)})


def test_inversions_are_selected_and_joined():
    joined = Inversion.concat([inversion()[1], inversion()[0]])
    assert joined.errors.tolist() == [1.0, 0.25]
    assert joined.history.shape == (2, 3)
    assert Inversion.concat([inversion(history=None)] * 2).history is None


def test_searches_of_other_lengths_are_joined_and_count_their_own_steps():
    short, none = inversion(history=torch.tensor([[5.0], [6.0]])), inversion(history=None)
    joined = Inversion.concat([short, inversion(), none])
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert joined.history[0].tolist() == [5.0, nan, nan]
    assert torch.equal(joined.history[2:4], inversion().history)
    assert joined.history[4:].isnan().all()
    assert [row["steps"] for row in joined.table()] == [1, 1, 3, 3, 0, 0]
    assert [row["start"] for row in joined.table()] == [5.0, 6.0, 1.0, 2.0, nan, nan]
    assert "history" in joined.figures()


@pytest.mark.parametrize("made", [counterfactual, inversion])
def test_it_comes_back_from_a_file_as_it_was(tmp_path, made):
    first = made(provenance={"seed": 3})
    first.save(tmp_path / "saved")
    second = Explanation.load(tmp_path / "saved")
    assert type(second) is type(first)
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, field.name


@pytest.mark.parametrize(
    ("made", "changes", "said"),
    [
        (counterfactual, {"images": torch.zeros(3, 4, 4)}, r"images must be floating point \[N, C, H, W\], not"),
        (counterfactual, {"counterfactuals": torch.zeros(3, 1, 4, 4)}, r"counterfactuals .* C = 2"),
        (
            counterfactual,
            {"counterfactuals": torch.full((3, 2, 4, 4), float("nan"))},
            "NaN or infinity, first in row 0",
        ),
        (counterfactual, {"logits_after": torch.zeros(3, 2)}, "logits_after .* K = 3"),
        (counterfactual, {"logits_before": torch.zeros(3)}, "logits_before"),
        (counterfactual, {"logits_before": torch.zeros(3, 0), "logits_after": torch.zeros(3, 0)}, "logits_before"),
        (counterfactual, {n: torch.zeros(3, 0, 4, 4) for n in ("images", "counterfactuals")}, r"not float32 \[3, 0, 4"),
        (counterfactual, {n: torch.zeros(3, 2, 0, 4) for n in ("images", "counterfactuals")}, "images must be"),
        (counterfactual, {"target": torch.tensor([0, 1])}, r"target must be integer \[N\], N = 3, not int64 \[2\]"),
        (counterfactual, {"target": torch.tensor([0.0, 1.0, 1.0])}, "target must be integer"),
        (counterfactual, {"target": 3}, "target .* outside the classes 0…2"),
        (counterfactual, {"source": -1}, "source .* outside"),
        (counterfactual, {"source": True}, "source must be a tensor"),
        (counterfactual, {"realism": torch.zeros(2)}, "realism"),
        (counterfactual, {"failures": ("", "x")}, "failures must be 3 texts"),
        (counterfactual, {"failures": ("", None, "")}, "failures must be 3 texts"),
        (counterfactual, {"class_names": ("a", "b")}, "2 class_names for logits of 3 outputs"),
        (counterfactual, {"value_range": (1.0, 1.0)}, "value_range"),
        (counterfactual, {"value_range": 1.0}, "value_range"),
        (inversion, {"reconstructions": torch.zeros(2, 1, 3, 4)}, "reconstructions .* W = 3"),
        (inversion, {"latents": torch.zeros(3, 2)}, r"latents must be floating point \[N, …\], N = 2, not"),
        (inversion, {"latents": torch.zeros(2)}, r"latents must be floating point \[N, …\], N = 2, not float32 \[2\]"),
        (inversion, {"latents": torch.zeros(2, 0)}, r"latents must be .* not float32 \[2, 0\]"),
        (inversion, {"latents": torch.zeros(2, 3, 0, 2)}, "latents"),
        (inversion, {"errors": torch.zeros(2, 1)}, "errors"),
        (inversion, {"errors": torch.tensor([-0.1, 1.0])}, "image 0 has an error of -0.1"),
        (inversion, {"failed": torch.tensor([0, 1])}, "failed must be bool"),
        (inversion, {"history": torch.zeros(2)}, "history"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(made, changes, said):
    with pytest.raises(ExplainerError, match=said) as raised:
        made(**changes)
    assert "\n" not in str(raised.value)


class Negative(Explainer):
    """Images upside down in brightness, as a counterfactual that is one or is not."""

    explains, accepts, returns = "discriminator", "images", Counterfactual

    def _explain(self, model, images, target):
        changed = -images
        before, after = model(images), model(changed)
        return Counterfactual(images, changed, target, before.argmax(1), before, after)


class Mean(Discriminator):
    """Two logits: darker than the middle, brighter than it."""

    class_names = ("dark", "bright")

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def test_an_explainer_returns_counterfactuals_of_several_targets_in_the_order_of_its_images():
    images = torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(6, 1, 4, 4).contiguous()
    target = [1, 0, 1, 0, 1, 0]
    found = Negative().explain(Mean().eval(), images, target=target, runtime=Runtime(batch_size=2))
    assert found.target.tolist() == target
    assert torch.equal(found.images, images)
    assert found.source.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.valid.tolist() == [True, False, True, True, False, True]
