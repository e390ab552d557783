"""The conformance class of discriminators and classifiers."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..models import Discriminator, HasFeatures
from .expectations import expect
from .model_checks import ModelTests
from .states import environment


class DiscriminatorTests(ModelTests):
    """Hold a discriminator to its contract: ``class TestMine(DiscriminatorTests): component = "discriminator/mine"``.

    Override `images` where it takes others than noise of its ``image_shape`` and ``value_range``.

    Attributes
    ----------
    cuda_tolerance
        Allowed difference of CUDA from the CPU, as a share of the largest magnitude.
    """

    kind: ClassVar[str] = "discriminator"
    shapes: ClassVar[str] = "'images [N, C, H, W] to logits [N, K]'"
    base: ClassVar[type[nn.Module]] = Discriminator

    # -- what an author may override ------------------------------------------------------------------------------

    def images(self, model: Any) -> Tensor:
        """Return at least three images ``[N, C, H, W]`` for a model."""
        return self.draw(model)

    # -- what the checks use --------------------------------------------------------------------------------------

    def answers(self, model: Any) -> dict[str, Tensor]:
        """Return the logits, and the features where it has them."""
        parameter = next(iter(model.parameters()), None)
        images = self.images(model).to(parameter.device if parameter is not None else "cpu")
        with torch.no_grad():
            found = {"logits": model(images)}
            if isinstance(model, HasFeatures):
                found["features"] = model.features(images)
        return found

    # -- the checks -----------------------------------------------------------------------------------------------

    def test_logits_have_a_column_for_each_class(self) -> None:
        """The shape is ``[N, K]``, and ``class_names`` names the K columns; features are ``[N, F]``."""
        model = self.new()
        n, found = len(self.images(model)), self.answers(model)
        for name, value in found.items():
            expect(
                isinstance(value, Tensor) and value.ndim == 2 and len(value) == n and value.is_floating_point(),
                f"{self.component}: {name} of {n} images are {_shape(value)}",
                f"return floating point [N, {'K' if name == 'logits' else 'F'}]; one logit is [N, 1]; "
                f"genxai_core.adapt.discriminator reduces patches and scales",
            )
        names = model.class_names
        expect(
            isinstance(names, tuple)
            and len(names) == found["logits"].shape[1]
            and all(isinstance(n, str) for n in names),
            f"{self.component}: class_names is {names!r} for {found['logits'].shape[1]} logits",
            "give a tuple of one name for each logit; for real/fake ('real',)",
        )

    def test_one_at_a_time_equals_batched(self) -> None:
        """In eval mode, what it says of an image does not depend on its neighbours."""
        model = self.new()
        mend = "in eval mode use no statistics of the batch (BatchNorm in train mode, minibatch features)"
        self.one_at_a_time(model, self.images(model), "the logits of image", mend)
        if isinstance(model, HasFeatures):
            self.one_at_a_time(model.features, self.images(model), "the features of image", mend)

    def test_gradients_reach_the_images(self) -> None:
        """Every logit (of very many, some) can be explained by its gradient: finite, and not zero for all images."""
        model = self.new().requires_grad_(False)
        images = self.images(model).requires_grad_()
        logits = model(images).reshape(len(images), -1)
        for k in range(0, logits.shape[1], max(1, logits.shape[1] // 16)):
            found: Any = (None,)
            if logits.requires_grad:
                found = torch.autograd.grad(logits[:, k].sum(), images, retain_graph=True, allow_unused=True)
            gradient = found[0]
            expect(
                gradient is not None and bool(torch.isfinite(gradient).all()) and bool(gradient.any()),
                f"{self.component}: no finite gradient of logit {k} that is not zero reaches the images",
                "compute logits by differentiable operations on the images, without detach, numpy or no_grad",
            )

    def test_eval_mode_is_deterministic(self) -> None:
        """Twice the same, bit for bit, drawing nothing."""
        model = self.new()
        images, before = self.images(model), environment()
        with torch.no_grad():
            same = torch.equal(model(images), model(images))
        expect(
            same and environment() == before,
            f"{self.component}: in eval mode two passes differ, or draw random numbers",
            "drop out and add noise only `if self.training`",
        )

    def test_given_returns_a_discriminator(self) -> None:
        """``given(labels=…)`` or ``given(t=…)``, where there is one, gives a discriminator of images alone."""
        model = self.new()
        given = getattr(model, "given", None)
        if given is None:
            self.skip("needs neither labels nor timesteps: it has no given()")
        images = self.images(model)
        for name in [n for n in ("labels", "t") if n in inspect.signature(given).parameters]:
            judge = given(**{name: torch.zeros(len(images), dtype=torch.long)})
            with torch.no_grad():
                logits = judge(images) if isinstance(judge, Discriminator) else None
            expect(
                logits is not None and logits.ndim == 2 and logits.shape == (len(images), len(judge.class_names)),
                f"{self.component}: given({name}=…) gave {type(judge).__name__}, with logits {_shape(logits)}",
                "return a Discriminator that holds the labels (or timesteps) and takes images alone",
            )


def _shape(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
