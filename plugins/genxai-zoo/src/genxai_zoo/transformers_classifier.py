"""An image classifier in a local folder of transformers, as a discriminator."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genxai_core import Discriminator, draws
from genxai_core.adapt.modules import View
from genxai_core.errors import StorageError

from .local_folder import brief, load, needs, read_config

NAME = "discriminator/transformers"


class TransformersClassifier(Discriminator):
    """Images ``[N, 1 or 3, H, W]`` of any size in ``value_range`` to the logits ``[N, K]`` of a model of transformers.

    The folder holds ``config.json``, safetensors and ``preprocessor_config.json``. Images are brought to what the model
    expects by the library's own torch code: resized, cropped and normalised as the folder says, differentiably, in
    floating point (the usual way, by PIL or bytes, rounds to 256 levels in between). Layers have the library's names
    behind ``module.``; the last linear layer stands apart, as ``head``, and what enters it are the features. The names
    of the classes are those of ``id2label``. No code of the folder is run, and nothing is downloaded.

    Parameters
    ----------
    folder
        What ``model.save_pretrained`` and ``processor.save_pretrained`` wrote.
    value_range
        Smallest and largest pixel value of the images.

    Raises
    ------
    NotInstalled
        If transformers or torchvision is not installed.
    StorageError
        If the folder is missing, has pickled weights or none, or weights that do not fit; if it holds no image
        classifier; if its logits are not one linear layer on one vector; if its preprocessing is not differentiable.
    """

    module: Any
    processor: Any

    def __init__(self, folder: Path, value_range: tuple[float, float] = (-1.0, 1.0)) -> None:
        super().__init__()
        read_config(folder, "config.json", NAME)
        read_config(folder, "preprocessor_config.json", NAME)
        with needs("transformers", NAME):
            import torchvision  # noqa: F401 - transformers prepares images in torch with it
            from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
        safe: dict[str, Any] = {"trust_remote_code": False}

        def model(path: str, **options: Any) -> Any:
            # config.json can name a kernel of a hub as its attention. What is given here overrides that, however it is
            # spelt, only where the configuration has been read before.
            config = AutoConfig.from_pretrained(path, local_files_only=True, **safe)
            return AutoModelForImageClassification.from_pretrained(
                path, config=config, attn_implementation="eager", dtype=torch.float32, **safe, **options
            )

        module: Any = load(model, folder, NAME)
        read: Any = AutoImageProcessor.from_pretrained
        try:
            self.processor = read(str(folder), local_files_only=True, **safe)  # in torch, with torchvision
        except Exception as error:  # an unknown class, missing values: it fails in many ways
            raise StorageError(f"{folder}: {NAME} cannot read its preprocessing: {brief(error)}") from error
        config = module.config
        channels = 1 if getattr(config, "num_channels", 3) == 1 else 3
        self.view = View.of(value_range, (0.0, 255.0), channels, None)
        self.value_range, self.module = self.view.value_range, module
        self.class_names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
        with torch.enable_grad():
            self.head = self._split(folder)

    def _split(self, folder: Path) -> nn.Linear:
        """Take the last linear layer off, and see on an image that logits are still what they were."""
        low, high = self.value_range
        image = low + (high - low) * draws.uniform(0, range(1), (3, 40, 48), "probe")
        try:
            seen = self.prepared(image.requires_grad_())
            logits = self.module(pixel_values=seen.detach()).logits
        except Exception as error:  # sizes that do not fit, inputs besides the image
            raise StorageError(f"{folder}: {NAME} cannot run it on an image: {brief(error)}") from error
        if not seen.requires_grad:
            raise StorageError(
                f"{folder}: {NAME} cannot differentiate through a {type(self.processor).__name__}; adapt the module "
                f"with genxai_core.adapt.discriminator, on images that are prepared"
            )
        linear = [(name, part) for name, part in self.module.named_modules() if isinstance(part, nn.Linear)]
        path, head = linear[-1] if linear else ("", None)
        if head is not None and head.out_features == len(self.class_names):
            parent, _, name = path.rpartition(".")
            setattr(self.module.get_submodule(parent), name, nn.Identity())
            with suppress(RuntimeError):  # two heads whose outputs no longer fit each other
                found = self.module(pixel_values=seen.detach()).logits
                largest = float(logits.detach().abs().max())
                if found.ndim == 2 and torch.allclose(head(found), logits, rtol=1e-4, atol=1e-5 * largest):
                    return head
        raise StorageError(
            f"{folder}: the logits of a {type(self.module).__name__} are not one linear layer on one vector, so it has "
            f"no features; adapt the module with genxai_core.adapt.discriminator"
        )

    def prepared(self, images: Tensor) -> Tensor:
        """Return what the model is given for images, differentiably.

        Raises
        ------
        InputError
            If the images have neither one channel nor three.
        """
        graph = torch.is_grad_enabled()
        # The library keeps mean and std from one call to the next: made in inference mode, they would later take no
        # part in a gradient. Leaving that mode switches gradients on, so they are put back to what they were.
        with torch.inference_mode(False), torch.set_grad_enabled(graph):
            pixels: Tensor = self.processor(images=list(self.view(images)), return_tensors="pt")["pixel_values"]
        return pixels

    def features(self, images: Tensor) -> Tensor:
        """Return ``[N, F]``, what enters the last linear layer: the pooled hidden state."""
        found: Tensor = self.module(pixel_values=self.prepared(images)).logits
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, K]``."""
        logits: Tensor = self.head(self.features(images))
        return logits
