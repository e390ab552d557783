"""Class activation maps: the channels of one layer, weighted and summed."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from pytorch_grad_cam import EigenCAM, GradCAM, LayerCAM
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genxai_core import Attribution, Discriminator, Explainer
from genxai_core.errors import ExplainerError, InputError

from .layers import Layer, find, recording
from .logits import logit

FORMULAS: dict[str, Any] = {"gradcam": GradCAM, "layercam": LayerCAM, "eigencam": EigenCAM}


class Cam(Explainer):
    """Class activation map of a layer with activations A_k and gradients g_k = ∂f_target/∂A_k, k over its channels.

    Maps ``[N, H, W]``, signed and not scaled: computed at the layer's resolution h × w, then brought to the image's
    size (bilinear, ``align_corners=False``), so that a value belongs to a position of the layer. Unlike
    pytorch-grad-cam, whose formulas are used, nothing is clipped at zero or divided by its largest value.

    Parameters
    ----------
    method
        ``gradcam``: Σ_k α_k A_k with α_k the mean of g_k over positions, in logits; without the paper's ReLU.
        ``layercam``: Σ_k max(g_k, 0) A_k, in logits; it drops gradients against the target, so it shows only what
        speaks for it, and is negative only where an activation is. ``eigencam``: the first principal component of A
        over positions, in units of the activation; it knows neither target nor logit. Its sign, which is arbitrary, is
        such that the map correlates positively with the sum of the activations, Σ_k A_k.
    layer
        A name of ``model.named_modules()``, or ``auto``: the last map with more than one position that the forward
        makes, usually after the activation. The result's ``notes`` name it with its resolution.

    Raises
    ------
    ValueError
        If the method is unknown.

    References
    ----------
    R. Selvaraju et al., "Grad-CAM", ICCV 2017 (arXiv:1610.02391), eq. 1-2. P.-T. Jiang et al., "LayerCAM", IEEE TIP
    2021. M. Muhammad, M. Yeasin, "Eigen-CAM", IJCNN 2020 (arXiv:2008.00299); activations are centred first,
    as in pytorch-grad-cam.
    """

    explains, accepts, returns = "discriminator", "images", Attribution

    def __init__(self, method: Literal["gradcam", "layercam", "eigencam"] = "gradcam", layer: str = "auto") -> None:
        if method not in FORMULAS:
            raise ValueError(f"method {method!r} is not one of {', '.join(FORMULAS)}")
        self.method = method
        self.layer = layer
        # Given the explainee, the library would put it into eval mode, hook it and overwrite its gradients. It gets a
        # stand-in (any module with a parameter, here one that draws no random numbers) and is asked for its formula.
        self._formula = FORMULAS[method](nn.PReLU(), [])

    def attribute(self, model: Discriminator, images: Tensor, target: int) -> Tensor:
        """Return maps ``[N, H, W]``, detached. The model is used in the mode in which it is.

        Raises
        ------
        InputError
            If the layer cannot be used; the message says why and which can.
        TargetError
            If the model has no such logit.
        """
        return _upsampled(self.at_layer(model, images, target).maps, images)

    def at_layer(self, model: Discriminator, images: Tensor, target: int) -> AtLayer:
        """Return maps ``[N, h, w]`` at the layer's own resolution, with the layer and the logits.

        Raises
        ------
        InputError
            If the layer cannot be used, or the logit does not depend on it.
        ExplainerError
            If its activations are not finite.
        """
        layer = find(model, images[:1], self.layer)
        needs_gradient = bool(self._formula.uses_gradients)
        with torch.set_grad_enabled(needs_gradient), recording(model, layer.name) as outputs:
            logits = logit(model, images.detach().requires_grad_(needs_gradient), target)
        (activations,) = outputs
        if not bool(torch.isfinite(activations).all()):  # the library would take NaN for 0
            raise ExplainerError(f"layer {layer.name!r} of {type(model).__name__} has NaN or infinite activations")
        gradients = _gradient(logits, activations, layer) if needs_gradient else None
        maps = torch.from_numpy(
            self._formula.get_cam_image(
                None, None, None, _numpy(activations), None if gradients is None else _numpy(gradients), False
            )
        ).to(images.device)
        if self.method == "eigencam":
            maps = _signed(maps, activations.detach().sum(1))
        return AtLayer(maps, layer, logits.detach())

    def _explain(self, model: Discriminator, images: Tensor, target: int | None) -> Attribution:
        target = target or 0
        maps, layer, logits = self.at_layer(model, images, target)
        # What the ends of the scale mean, where they are not for and against the target.
        meaning = {"meaning": ("less active", "more active")} if self.method == "eigencam" else {}
        return Attribution(
            maps=_upsampled(maps, images),
            target=target,
            logits=logits,
            notes={"method": self.method, "layer": layer.name, "resolution": layer.resolution, **meaning},
        )


class AtLayer(NamedTuple):
    """Maps before they are brought to the image's size."""

    maps: Tensor
    layer: Layer
    logits: Tensor


def _gradient(logits: Tensor, activations: Tensor, layer: Layer) -> Tensor:
    found = None
    if activations.requires_grad:
        (found,) = torch.autograd.grad(logits, activations, torch.ones_like(logits), allow_unused=True)
    if found is None:
        raise InputError(
            f"layer {layer.name!r} cannot be used: the logit does not depend on it through anything differentiable; "
            f"name another layer, or use method eigencam"
        )
    return found


def _numpy(tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


def _signed(maps: Tensor, activity: Tensor) -> Tensor:
    """Turn each map so that it correlates positively with the activity; one that does not correlate is kept."""
    centred = activity - activity.mean((1, 2), keepdim=True)
    return torch.where((maps * centred).sum((1, 2), keepdim=True) < 0, -maps, maps)


def _upsampled(maps: Tensor, images: Tensor) -> Tensor:
    return interpolate(maps[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
