"""A third party's explainer: file, hook and class together."""

from genxai_core import Attribution, Component, Explainer, hookimpl


class Occlude(Explainer):
    """Drop of the logit when a 4x4 block is filled with the mean. Maps [N, H, W], in logits."""

    explains, accepts, returns = "discriminator", "images", Attribution

    def _explain(self, model, images, target):
        logit = model(images)[:, target]
        maps = images.new_zeros(len(images), *images.shape[2:])
        for y in range(0, images.shape[2], 4):
            for x in range(0, images.shape[3], 4):
                hidden = images.clone()
                hidden[..., y : y + 4, x : x + 4] = images.mean((1, 2, 3), keepdim=True)
                maps[:, y : y + 4, x : x + 4] = (logit - model(hidden)[:, target])[:, None, None]
        return Attribution(maps=maps, target=target)


@hookimpl
def genxai_components():
    """Register it. This function must not import torch, and need not: importing genxai_core does not."""
    return [Component("explainer", "occlude", "occlude:Occlude", "mean-fill occlusion")]
