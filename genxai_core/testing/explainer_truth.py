"""What an explainer's map says: of which logit, where, with which sign, and nothing of a model that is constant."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import GenxaiError, GenxaiWarning, one_line
from ..explanation import Attribution
from ..runtime import Runtime
from ..samples import Samples
from .expectations import expect, failure
from .explainer_base import ExplainerBase

ALLOWANCE = 0.05
"""How much more energy a patch may hold one pixel off: coarse methods (windows, cells, enlarged layers) bleed."""


class TruthChecks(ExplainerBase):
    """The checks of `ExplainerTests` that hold maps against discriminators of which the answer is known."""

    def _explains_logits(self) -> str:
        """Why the checks of maps against a planted logit do not apply, or nothing."""
        target = self.target()
        if target.explains != "discriminator" or target.accepts not in ("images", "samples"):
            return "explains no discriminator's logit of given images"
        return "" if issubclass(target.returns, Attribution) else f"returns {target.returns.__name__}, not maps"

    def _planted_maps(self, model: nn.Module, samples: Samples, target: int = 0) -> Tensor:
        """Return the maps ``[N, H, W]`` of a logit, channels added up."""
        inputs = samples if self.target().accepts == "samples" else samples.images
        runtime = Runtime(device="cpu", quiet=True)
        maps: Tensor = self.build().explain(model, inputs, target=target, runtime=runtime).maps
        return maps.double().sum(1) if maps.ndim == 4 else maps.double()

    def test_positive_speaks_for_the_target(self) -> None:
        """On a discriminator that adds up one patch, the map lies in it, positive; negated, negative."""
        reason = self._explains_logits()
        if reason:
            self.skip(reason)
        expect(
            self.sign == "signed" or self.sign_reason.strip(),
            f"{self.component}: sign = {self.sign!r} without a reason",
            "set sign_reason = '…': why the method has no sign by definition",
        )
        for direction in (1.0, -1.0) if self.sign == "signed" else (1.0,):
            model, samples = self.planted(direction)
            maps = self._planted_maps(model, samples)
            if samples.masks is None:
                raise failure(f"{type(self).__name__}.planted returned samples without masks", "say where the truth is")
            inside = samples.masks[: len(maps), 0]
            self._expect_inside(maps, inside, "the logit")
            mass = (maps * inside).sum((1, 2)) * direction
            expect(
                self.sign == "unsigned" or float(mass.min()) > 0,
                f"{self.component}: where the patch speaks {'for' if direction > 0 else 'against'} the target, the "
                f"map's sum in it is {float((mass * direction).min()):.3g}",
                "positive speaks for the target, negative against it: keep the sign, do not take magnitudes, explain "
                "the logit rather than a loss. A method without sign sets sign = 'unsigned' and sign_reason",
            )

    def test_the_map_is_of_its_target_at_its_place(self) -> None:
        """Of two logits with a patch each, in colour images that are not square, each map lies in its own patch."""
        reason = self._explains_logits()
        if reason:
            self.skip(reason)
        refused = ""
        for shape in ((32, 16), (16, 16)):
            model, samples = self.two_targets(*shape)
            both = samples.masks.any(1, keepdim=True) if samples.masks is not None else None
            given = replace(samples, masks=both, concepts=("patches",))  # the masks of samples do not tell the target
            what = f"{list(samples.images.shape[1:])} with two logits"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", GenxaiWarning)  # a map of zero is told of below
                    found = [self._planted_maps(model, given, target) for target in (0, 1)]
            except GenxaiError as error:
                refused = refused or f"{what}: {one_line(error)}"
            except Exception as error:
                raise failure(
                    f"{self.component}: images {what} raised {one_line(error)}",
                    "take any number of channels and classes, and any height and width; refuse in words "
                    "(InputError) what the method cannot explain",
                ) from error
            else:
                self._expect_two(model, samples, found)
                return
        self.skip(f"refuses images {refused}; override two_targets to have this checked")

    def _expect_two(self, model: nn.Module, samples: Samples, found: list[Tensor]) -> None:
        """Hold the maps of two logits against the patch of each, and of the other."""
        if samples.masks is None or samples.masks.shape[1] != 2:
            raise failure(f"{type(self).__name__}.two_targets returned samples without two masks", "return a mask each")
        with torch.no_grad():
            logits = model(samples.images)
        for k, maps in enumerate(found):
            n, which = len(maps), f"logit {k} of two"
            own, other = samples.masks[:n, k], samples.masks[:n, 1 - k]
            self._expect_inside(maps, own, which)
            here, there = (float((maps.square() * mask).sum()) for mask in (own, other))
            expect(
                here >= 3 * there,
                f"{self.component}: the map of {which} has {there / max(here, 1e-30):.0%} as much energy in the patch "
                f"that moves the other logit alone as in its own",
                "explain model(images)[:, target]: not the sum of all logits, nor always the first",
            )
            mass = ((maps if self.sign != "unsigned" else maps.abs()) * own).sum((1, 2))
            expect(
                float(mass.min()) > 0,
                f"{self.component}: the map of {which} sums up to {float(mass.min()):.3g} in the patch that speaks "
                f"for it",
                "add up the contributions of all channels, with their signs",
            )
            sure, unsure = float(mass[logits[:n, k].argmax()]), float(mass[logits[:n, k].argmin()])
            expect(
                sure >= 0.1 * unsure,
                f"{self.component}: the map of {which} vanishes where the logit is large: it sums up to {sure:.3g} "
                f"where the patch speaks loudest, and to {unsure:.3g} where it speaks least",
                "explain the logit, not a probability, which saturates",
            )

    def _expect_inside(self, maps: Tensor, inside: Tensor, which: str) -> None:
        """Fail unless the energy of maps ``[N, H, W]`` lies inside a patch, and no pixel beside it."""
        energy = maps.square()
        total = energy.sum((1, 2)).clamp(min=1e-30)
        share = (energy * inside).sum((1, 2)) / total
        expect(
            float(share.min()) >= self.inside,
            f"{self.component}: only {float(share.min()):.0%} of a map's energy lies in the only patch that moves "
            f"{which} (asked for: {self.inside:.0%})",
            "check that the map is of the logit of `target` (not of a probability, which saturates), of all channels, "
            "and at the place of the pixels (no flip, no shift)",
        )
        moved = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
        beside = {m: float(((energy * inside.roll(m, (1, 2))).sum((1, 2)) / total).mean()) for m in moved}
        best = max(beside, key=lambda m: beside[m])
        expect(
            beside[best] <= float(share.mean()) + ALLOWANCE,
            f"{self.component}: the map of {which} fits the patch better a pixel off: moved by {best[0]} down "
            f"and {best[1]} right, the patch holds {beside[best]:.0%} of the energy, at its place "
            f"{float(share.mean()):.0%}",
            "let map pixel (i, j) belong to image pixel (i, j): align_corners=False, and padding on both sides",
        )

    def test_a_constant_model_gets_a_map_of_zero(self) -> None:
        """Where no pixel moves the logit the map is zero and finite, or the explainer refuses in words."""
        reason = self._explains_logits()
        if reason:
            self.skip(reason)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GenxaiWarning)
            try:
                maps = self._planted_maps(self.constant(), self.planted(1.0)[1])
            except GenxaiError:
                return
        expect(
            float(maps.abs().max()) <= self.atol,
            f"{self.component}: of a model whose logit is constant the map reaches {float(maps.abs().max()):.3g}",
            "a map per unit of logit must vanish where the logit does not move: do not normalise it",
        )
