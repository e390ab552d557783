"""Class activation maps: the channels of one layer, weighted and summed."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genxai_core import Attribution, Discriminator, Explainer, Runtime

from .fast import applied, recorded
from .formulas import GRADIENT, PLAIN
from .layers import Layer, find
from .logits import finer, select
from .maps import Call
from .masked import ablationcam, scorecam

MASKED = {"scorecam": scorecam, "ablationcam": ablationcam}


class Cam(Explainer):
    """Class activation map of a layer with activations A_k and gradients g_k = ∂f_target/∂A_k, k over its channels.

    Maps ``[N, H, W]``, signed and not scaled: computed at the layer's resolution h × w, then brought to the image's
    size (bilinear, ``align_corners=False``), so that a value belongs to a position of the layer. The formulas are
    pytorch-grad-cam's, but nothing is clipped at zero or divided by its largest value. Those that need gradients cost
    one forward, and one backward down to the layer.

    Parameters
    ----------
    method
        ``gradcam``: Σ_k α_k A_k with α_k the mean of g_k over positions, in logits; without the paper's ReLU.
        ``gradcam++``: α_k a sum of max(g_k, 0) that favours few strong positions. ``hirescam``: Σ_k g_k A_k, position
        by position, in logits; exact where what follows is linear. ``xgradcam``: α_k the mean of g_k weighted by A_k,
        kept within the range of g_k. ``layercam``: Σ_k max(g_k, 0) A_k, in logits; like gradcam++ it drops gradients
        against the target, so it shows only what speaks for it, and is negative only where an activation is.
        ``eigengradcam``: the first principal component of g A, its sign that of Σ_k g_k A_k. ``eigencam``: the first
        principal component of A over positions, in units of the activation; it knows neither target nor logit. Its
        sign, which is arbitrary, is such that the map correlates positively with the sum of the activations, Σ_k A_k.
        ``finer-cam``: gradcam of what sets the target apart from the three classes of the nearest logits; refused for a
        single logit. ``scorecam``: α_k the softmax over channels of the logit of the image masked by A_k; it knows no
        "against". ``ablationcam``: α_k what the logit loses when channel k is set to 0. The last two need no gradient
        and one forward per channel.
    layer
        A name of ``model.named_modules()``, or ``auto``: the last map with more than one position that the forward
        makes, usually after the activation. The result's ``notes`` name it with its resolution.

    Raises
    ------
    ValueError
        If the method is unknown.

    References
    ----------
    R. Selvaraju et al., "Grad-CAM", ICCV 2017 (arXiv:1610.02391), eq. 1-2. A. Chattopadhay et al., "Grad-CAM++", WACV
    2018 (arXiv:1710.11063). R. Draelos, L. Carin, "HiResCAM", 2020 (arXiv:2011.08891). R. Fu et al., "XGradCAM", BMVC
    2020 (arXiv:2008.02312). P.-T. Jiang et al., "LayerCAM", IEEE TIP 2021. M. Muhammad, M. Yeasin, "Eigen-CAM", IJCNN
    2020 (arXiv:2008.00299); activations are centred first, as in pytorch-grad-cam. H. Wang et al., "Score-CAM", CVPR
    workshops 2020 (arXiv:1910.01279). H. Ramaswamy, S. Desai, "Ablation-CAM", WACV 2020. Z. Zhang et al., "Finer-CAM",
    CVPR 2025 (arXiv:2501.11309).
    """

    explains, accepts, returns = "discriminator", "images", Attribution

    def __init__(
        self,
        method: Literal[
            "gradcam",
            "gradcam++",
            "hirescam",
            "xgradcam",
            "layercam",
            "eigengradcam",
            "eigencam",
            "finer-cam",
            "scorecam",
            "ablationcam",
        ] = "gradcam",
        layer: str = "auto",
    ) -> None:
        known = [*GRADIENT, *PLAIN, "finer-cam", *MASKED]
        if method not in known:
            raise ValueError(f"method {method!r} is not one of {', '.join(known)}")
        self.method = method
        self.layer = layer

    def attribute(self, model: Discriminator, images: Tensor, target: int) -> Tensor:
        """Return maps ``[N, H, W]``, detached. The model is used in the mode in which it is.

        Raises
        ------
        InputError
            If the layer cannot be used; the message says why and which can.
        TargetError
            If the model has no such logit.
        """
        return _upsampled(self.at_layer(model, images.detach(), target).maps, images)

    def at_layer(self, model: Discriminator, images: Tensor, target: int, call: Call | None = None) -> AtLayer:
        """Return maps ``[N, h, w]`` at the layer's own resolution, with the layer and the logits.

        Raises
        ------
        InputError
            If the layer cannot be used, or the logit does not depend on it.
        ExplainerError
            If its activations are not finite.
        """
        layer = find(model, images[:1], self.layer)
        apart = self.method == "finer-cam"
        formula, score = ("gradcam", finer) if apart else (self.method, select)
        needed = formula in GRADIENT
        found, logits = recorded(model, images, target, [layer.name], gradients=needed, score=score)
        activations, gradients = found[layer.name]
        if self.method in MASKED:
            call = call or Call(len(images))
            maps = MASKED[self.method](model, images, target, activations, layer.name, call)
        else:
            maps = applied(formula, activations, gradients)
        return AtLayer(maps, layer, logits)

    def _explain(
        self, model: Discriminator, images: Tensor, target: int | None, runtime: Runtime | None = None
    ) -> Attribution:
        target = target or 0
        call = Call(max(runtime.batch_size if runtime else 0, len(images)))
        maps, layer, logits = self.at_layer(model, images, target, call)
        # What the ends of the scale mean, where they are not for and against the target.
        meaning: dict[str, Any] = {"meaning": ("less active", "more active")} if self.method == "eigencam" else {}
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


def _upsampled(maps: Tensor, images: Tensor) -> Tensor:
    with torch.no_grad():
        return interpolate(maps[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
