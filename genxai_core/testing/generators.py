"""The conformance class of generators."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import GenxaiError, InputError
from ..guard import guard
from ..models import (
    CanSample,
    Conditional,
    Denoises,
    Generator,
    HasDensity,
    HasEncoder,
    HasFeatures,
    HasLatents,
    Translates,
)
from ..runtime import Runtime
from ..samples import Samples
from .expectations import expect, expect_error
from .model_checks import ModelTests
from .states import differences, environment

_MEND_DRAWS = (
    "draw by index: genxai_core.draws.normal(seed, range(start, start + n), shape), not from a global generator"
)


class GeneratorTests(ModelTests):
    """Hold a generator to its contract: ``class TestMine(GeneratorTests): component = "generator/mine"``.

    What it can do it says by having the methods of a capability (`CanSample`, `HasLatents`, …); each that it has is
    checked, and those that it has not are skipped.

    Attributes
    ----------
    cuda_tolerance
        Allowed difference of CUDA from the CPU, as a share of the largest magnitude.
    """

    kind: ClassVar[str] = "generator"
    shapes: ClassVar[str] = "'latents [N, 64] to images [N, C, H, W]'"
    base: ClassVar[type[nn.Module]] = Generator

    # -- what an author may override ------------------------------------------------------------------------------

    def images(self, model: Any) -> Tensor:
        """Return images ``[N, C, H, W]`` for an encoder, a density or a translator; the model's own, or noise."""
        with torch.no_grad():
            return _drawn(model, 4, 11).images if isinstance(model, CanSample) else self.draw(model)

    # -- what the checks use --------------------------------------------------------------------------------------

    def answers(self, model: Any) -> dict[str, Tensor]:
        """Return what it draws, and what it says by each of its capabilities."""
        found: dict[str, Tensor] = {}
        module: Any = model  # which protocols are not known to be
        parameter = next(iter(model.parameters()), None)
        device = parameter.device if parameter is not None else torch.device("cpu")
        with torch.no_grad():
            if isinstance(model, CanSample):
                found["sample"] = _drawn(model, 4, 7).images
            if isinstance(model, HasLatents) and not _conditional(model):
                found["forward"] = module(model.sample_latents(4, seed=7).to(device))
            images = self.images(model).to(device)
            index = torch.zeros(len(images), dtype=torch.long, device=device)
            if isinstance(model, HasEncoder):
                found["encode"] = model.encode(images)
            if isinstance(model, HasDensity):
                found["log_prob"] = model.log_prob(images)
            if isinstance(model, Translates):
                found["translate"] = model.translate(images, index)
            if isinstance(model, Denoises):
                found["predict"] = model.predict(images, index)
            if isinstance(model, HasFeatures):
                found["features"] = model.features(images)
        return found

    def _sampling(self) -> Any:
        model = self.new()
        if not isinstance(model, CanSample):
            self.skip("draws no samples: it has no sample(n, seed, labels, start)")
        return model

    def _latents(self) -> Any:
        model = self.new()
        if _conditional(model):
            self.skip("is conditional: its images are of latents and labels")
        if not isinstance(model, HasLatents):
            self.skip("has no latents: latent_shape, sample_latents and forward(latents)")
        return model

    # -- sampling -------------------------------------------------------------------------------------------------

    def test_it_can_do_something(self) -> None:
        """It has at least one capability; without any, no method can use it."""
        expect(
            self.answers(self.new()),
            f"{self.component} has no capability",
            "write sample(n, seed, labels=None, start=0), or the methods of another capability of genxai_core.models",
        )

    def test_samples_are_in_its_range(self) -> None:
        """``sample`` returns Samples of n images, finite, in ``value_range``."""
        model = self._sampling()
        samples = _drawn(model, 5, 0)
        expect(
            isinstance(samples, Samples) and len(samples) == 5,
            f"{self.component}: sample(5) returned {type(samples).__name__}",
            "return Samples(images, latents=…, value_range=self.value_range) of n images",
        )
        low, high = map(float, model.value_range)
        pixels = samples.images.detach()
        found = float(pixels.min()), float(pixels.max())
        expect(
            samples.value_range == (low, high) and low <= found[0] <= found[1] <= high,
            f"{self.component}: pixels from {found[0]:.3g} to {found[1]:.3g} in {samples.value_range}, the model says "
            f"({low:g}, {high:g})",
            "end in what is bounded (tanh, sigmoid, clamp), and declare that range",
        )
        expect(
            not samples.images.requires_grad,
            f"{self.component}: samples carry a graph",
            "sample under torch.no_grad(); who needs gradients calls forward(latents)",
        )

    def test_image_i_depends_on_its_seed_and_index_alone(self) -> None:
        """``sample(2, seed, start=2)`` is rows 2 and 3 of ``sample(5, seed)``; another seed gives other images."""
        model = self._sampling()
        whole, part = _drawn(model, 5, 3), _drawn(model, 2, 3, start=2)
        wrong = self.alike(part.images, whole[2:4].images)
        expect(not wrong, f"{self.component}: images 2 and 3 depend on the batch: {'; '.join(wrong)}", _MEND_DRAWS)
        with guard():
            Runtime(seed=99).seed_global()
            again = _drawn(model, 5, 3)
        wrong = differences(again.images, whole.images)
        expect(not wrong, f"{self.component}: one seed gave two samples: {'; '.join(wrong)}", _MEND_DRAWS)
        other = _drawn(model, 5, 4)
        same = [i for i in range(5) if torch.equal(other.images[i], whole.images[i])]
        expect(not same, f"{self.component}: images {same} of seeds 3 and 4 are the same", "let the seed decide")

    def test_sampling_draws_from_no_global_generator(self) -> None:
        """The generators of Python, numpy and torch are where they were."""
        model, before = self._sampling(), environment()
        _drawn(model, 3, 0)
        wrong = [name for name, value in environment().items() if before[name] != value]
        expect(not wrong, f"{self.component}: sampling moved {', '.join(wrong)}", _MEND_DRAWS)

    def test_labels_are_kept_or_refused(self) -> None:
        """A conditional generator returns the labels that it was given; any other refuses labels."""
        model = self._sampling()
        conditional = _conditional(model)
        labels = _labels(model, 3, 0) if conditional else torch.zeros(3, dtype=torch.long)
        if not conditional:
            mend = "raise InputError where labels are given: it is unconditional"
            what = f"{self.component} with labels"
            expect_error(GenxaiError, lambda: model.sample(3, seed=0, labels=labels), what, mend)
            return
        samples = model.sample(3, seed=0, labels=labels)
        expect(
            samples.labels is not None and torch.equal(samples.labels.cpu(), labels),
            f"{self.component}: asked for labels {labels.tolist()}, the samples say {samples.labels}",
            "return Samples(…, labels=labels, class_names=…)",
        )
        expect_error(
            GenxaiError,
            lambda: model.sample(1, seed=0, labels=torch.tensor([model.num_classes])),
            f"{self.component} with label {model.num_classes} of {model.num_classes}",
            "raise InputError for a label that is out of range",
        )

    # -- latents --------------------------------------------------------------------------------------------------

    def test_latents_have_their_shape(self) -> None:
        """``sample_latents`` gives ``[n, *latent_shape]``, row i by (seed, start + i), bit for bit."""
        model = self._latents()
        whole, part = model.sample_latents(5, seed=3), model.sample_latents(2, seed=3, start=2)
        expect(
            tuple(whole.shape) == (5, *model.latent_shape) and whole.is_floating_point(),
            f"{self.component}: sample_latents(5) is {whole.dtype} {list(whole.shape)}, latent_shape is "
            f"{model.latent_shape}",
            "draw [n, *self.latent_shape], floating point",
        )
        wrong = differences(part, whole[2:4])
        expect(not wrong, f"{self.component}: latents 2 and 3 depend on the batch: {'; '.join(wrong)}", _MEND_DRAWS)

    def test_samples_are_made_from_their_latents(self) -> None:
        """``forward(samples.latents)`` gives the images again, and each latent its image, whatever the batch."""
        model = self._latents()
        if isinstance(model, CanSample) and not _conditional(model):
            samples = _drawn(model, 4, 5)
            if samples.latents is not None:
                with torch.no_grad():
                    made: Any = model
                    wrong = self.alike(made(samples.latents), samples.images)
                expect(
                    not wrong,
                    f"{self.component}: forward(samples.latents) is not samples.images: {'; '.join(wrong)}",
                    "let sample draw latents, call forward, and return both",
                )
        mend = "in eval mode use no statistics of the batch (PixelNorm or GroupNorm instead of BatchNorm)"
        self.one_at_a_time(model, model.sample_latents(4, seed=5), "the image of latent", mend)

    def test_gradients_reach_the_latents(self) -> None:
        """Latents can be optimised: the gradient is finite and not zero."""
        model = self._latents().requires_grad_(False)
        latents = model.sample_latents(3, seed=0).detach().requires_grad_()
        images = model(latents)
        weights = torch.linspace(0.5, 1.5, images.numel(), device=images.device).view_as(images)
        (gradient,) = (
            torch.autograd.grad((images * weights).sum(), latents, allow_unused=True)
            if images.requires_grad
            else (None,)
        )
        expect(
            gradient is not None and bool(torch.isfinite(gradient).all()) and bool(gradient.any()),
            f"{self.component}: no finite gradient that is not zero reaches the latents",
            "let forward(latents) be differentiable: no no_grad, detach, rounding or numpy",
        )

    def test_latents_of_wrong_shape_are_refused(self) -> None:
        """In one line that says what it takes, not somewhere within a layer."""
        model = self._latents()
        latents = model.sample_latents(2, seed=0)
        mend = "raise InputError in forward where latents.shape[1:] != self.latent_shape"
        expect_error(
            InputError, lambda: model(latents[:, :-1]), f"{self.component} with latents one number short", mend
        )

    # -- the other capabilities -----------------------------------------------------------------------------------

    def test_its_other_capabilities_keep_their_shapes(self) -> None:
        """Latents of an encoder, one density per image, translated and predicted images of the images' shape."""
        model = self.new()
        images, found = self.images(model), self.answers(model)
        n, latents = len(images), tuple(getattr(model, "latent_shape", ()))
        wanted = {
            "encode": (n, *latents) if latents else None,
            "log_prob": (n,),
            "translate": tuple(images.shape),
            "predict": tuple(images.shape),
        }
        if not found.keys() & {*wanted, "features"}:
            self.skip("only draws: it encodes, translates, denoises nothing and knows no density")
        for name, shape in wanted.items():
            if name in found and shape is not None:
                expect(
                    tuple(found[name].shape) == shape,
                    f"{self.component}: {name} gives {list(found[name].shape)} for images {list(images.shape)}",
                    f"return {list(shape)}",
                )
        if "features" in found:
            shape = tuple(found["features"].shape)
            expect(len(shape) == 2 and shape[0] == n, f"{self.component}: features are {list(shape)}", "return [N, F]")


def _conditional(model: Any) -> bool:
    return isinstance(model, Conditional) and bool(model.num_classes)


def _labels(model: Any, n: int, start: int) -> Tensor:
    """Return labels by index, so that image i has the same one in any batch."""
    return torch.arange(start, start + n) % int(model.num_classes)


def _drawn(model: Any, n: int, seed: int, start: int = 0) -> Any:
    """Draw, with labels where the model wants them."""
    given = {"labels": _labels(model, n, start)} if _conditional(model) else {}
    return model.sample(n, seed=seed, start=start, **given)
