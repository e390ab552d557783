"""Randomisation: whether a map still looks the same when the model has forgotten what it learned."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from genxai_core import Attribution, Discriminator, Explainer, GenxaiWarning, Spec, draws
from genxai_core.errors import InputError

from .anew import Anew
from .explanations import Batch, with_errors
from .ranks import spearman


class Randomisation(Anew):
    """Similarity of maps before and after parameters were replaced by random numbers. Lower is better, in [0, 1].

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018. Layers are the modules that have parameters of
    their own, from the bottom to the top in the order in which they are first called. A layer is randomised by drawing
    each of its parameters from a normal distribution of mean 0 and of that tensor's root mean square (which leaves
    zeros and buffers as they are; spectral and weight norm are resolved into the weight first). With ρ the rank
    correlation of the maps ``[N, H, W]`` (``[N, C, H, W]`` is summed over channels) before and after, 0 where one of
    them is constant,

        similarity = mean over layers of |ρ|,    similarity_all = |ρ| once every layer is random.

    |ρ|, since a map that only changes its sign looks the same. An explanation that does not depend on what the model
    has learned has 1, an edge filter for one. One that does is near 0: |ρ| is about 0.8 / √P for two random maps of
    P independent pixels, more for smooth ones. `per_layer` gives the paper's curve.

    Known weaknesses: passing is necessary, not sufficient: noise passes, and so does −φ. Rank correlation sees noise
    in pixels of no importance. An architecture alone is a prior: maps that are multiplied by the image (gradient ×
    input) stay alike where the image is nearly black, whatever the model. One random model is drawn per layer.

    Parameters
    ----------
    explainer
        The explainer that made the explanation, ``{use: explainer/saliency}``: it explains every random model.
    mode
        ``cascading``: layers are randomised one after another from the top, and stay so. ``independent``: one at a
        time, the others as they were.
    absolute
        Whether to compare magnitudes.

    Raises
    ------
    ValueError
        If the explainer makes no maps of images.
    """

    needs = frozenset({"model", "explanation"})
    higher_is_better = with_errors(similarity=False, similarity_all=False)
    by = "metric/randomisation"
    _layers: list[str]

    def __init__(
        self,
        explainer: Spec | Explainer,
        mode: Literal["cascading", "independent"] = "cascading",
        absolute: bool = False,
    ) -> None:
        super().__init__(explainer)
        self.mode, self.absolute = mode, absolute

    def update(self, *, model: Discriminator, explanation: Attribution) -> None:  # type: ignore[override]
        """Take in more explanations of a model: of models with the same layers, if of several.

        Raises
        ------
        InputError
            If the explanation is empty, not finite, does not fit the model, or is not what the explainer makes of it;
            if the model has no parameters, or other layers than one before.
        TargetError
            If the model has no such logit as was explained.
        """
        self._take(explanation, model)

    def _judge(self, batch: Batch) -> Tensor:
        assert batch.model is not None  # it is needed
        before = self._original(batch, batch.model)
        random = resolved(batch.model)
        layers = _layers(random, batch.images[:1])
        self._same_layers(list(layers))
        stages = []
        for _ in _stages(random, layers, self.mode, batch.runtime.seed):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GenxaiWarning)  # a map of zeros is an answer here
                after = self._maps(batch, random, batch.images[None])[0]
            stages.append(self._similarity(before, after))
        found = torch.stack(stages, 1)
        return torch.cat([found[:, : len(layers)].mean(1, keepdim=True), found[:, -1:], found[:, : len(layers)]], 1)

    def _similarity(self, before: Tensor, after: Tensor) -> Tensor:
        one, other = (m.sum(1).flatten(1) for m in (before, after))
        return (spearman(one.abs(), other.abs()) if self.absolute else spearman(one, other)).abs()

    def _same_layers(self, layers: list[str]) -> None:
        if not layers:
            raise InputError(f"{self.by}: the model has no parameters to randomise")
        if self._kept and layers != self._layers:
            raise InputError(f"{self.by}: this model has other layers than the one before; reset, or measure it apart")
        self._layers = layers

    def per_layer(self) -> dict[str, float]:
        """Return the mean |ρ| after each layer was randomised, from the top down.

        Raises
        ------
        InputError
            If nothing has been seen.
        """
        self.per_image()  # says so if nothing has
        means = torch.cat(self._kept)[:, len(self.figures) :].mean(0)
        return dict(zip(reversed(self._layers), means.tolist()))

    def merge(self, other: Self) -> None:
        """Take in what another instance has seen.

        Raises
        ------
        InputError
            If it is another metric, or has seen a model with other layers.
        """
        if type(other) is type(self) and other._kept:
            self._same_layers(other._layers)
        super().merge(other)

    def reset(self) -> None:
        """Forget all images and layers."""
        super().reset()
        self._layers = []


def resolved(model: Discriminator) -> Discriminator:
    """Copy a model, with plain weights for parametrised ones: an old norm of a new weight would be no norm."""
    computed = [t for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor) and not t.is_leaf]
    model = copy.deepcopy(model, {id(t): t.detach() for t in computed})  # those of older norms cannot be copied
    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, SpectralNorm):
                nn.utils.remove_spectral_norm(module, hook.name)
            elif isinstance(hook, WeightNorm):
                nn.utils.remove_weight_norm(module, hook.name)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            weights = {name: getattr(module, name).detach() for name in module.parametrizations}  # type: ignore[union-attr]
            module.__class__ = type(module).__bases__[0]  # the class with the properties is the original's, too
            del module.parametrizations
            for name, weight in weights.items():
                setattr(module, name, nn.Parameter(weight))
    return model


def _layers(model: Discriminator, images: Tensor) -> dict[str, nn.Module]:
    """Return the modules with parameters of their own, in the order of their first call; then those never called."""
    own = {name: m for name, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None}
    called: dict[str, nn.Module] = {}
    handles = [
        module.register_forward_pre_hook(lambda module, _, name=name: called.setdefault(name, module) and None)
        for name, module in own.items()
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return called | {name: module for name, module in own.items() if name not in called}


def _stages(model: Discriminator, layers: dict[str, nn.Module], mode: str, seed: int) -> Iterator[None]:
    """Bring the model to one stage after another: a layer random, from the top; at last all of them."""
    for name, module in reversed(layers.items()):
        before = [p.detach().clone() for p in module.parameters(recurse=False)]
        _randomise(name, module, seed)
        yield
        if mode == "independent":
            with torch.no_grad():
                for parameter, value in zip(module.parameters(recurse=False), before):
                    parameter.copy_(value)
    if mode == "independent":
        for name, module in layers.items():
            _randomise(name, module, seed)
        yield


def _randomise(name: str, module: nn.Module, seed: int) -> None:
    with torch.no_grad():
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.is_floating_point():
                drawn = draws.normal(seed, [0], parameter.shape, f"randomisation {name}.{own}")[0]
                parameter.copy_(drawn * parameter.detach().double().square().mean().sqrt().to(drawn))
