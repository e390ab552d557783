"""Semantic-segmentation models of the transformers library, from a folder of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genxai_core import Samples, Segmenter, storage
from genxai_core.errors import InputError, one_line
from genxai_core.local_folder import foreign

_FILTERS = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that torch has."""


class Transformers(Segmenter):
    """Masks ``[N, concepts, H, W]`` of what a model calls each pixel: SegFormer, BEiT, DPT, UperNet and their like.

    The folder is what ``save_pretrained`` of model and image processor wrote: ``config.json``,
    ``preprocessor_config.json``, and weights as safetensors. Nothing is downloaded, no code in the folder is run, and
    no weight may be missing. Images are resized, rescaled and normalised as the processor's file says, in torch and
    without rounding to 8 bits; a centre crop is left out, since masks cover the whole image. The logits are enlarged
    bilinearly (``align_corners=False``) to the images' size, and a pixel has the label of the largest one.

    Labels that share a name are one concept. Gray images are given to the model in three equal channels.

    Parameters
    ----------
    folder
        The model's folder.
    concepts
        Which of the model's labels to keep, in this order; default: all. Masks of 150 labels take room.

    Raises
    ------
    ValueError
        If the folder holds no such model, its files are damaged or ask for what is not supported, or a concept is not
        among its labels.
    """

    def __init__(self, folder: Path, concepts: tuple[str, ...] = ()) -> None:
        self._prepare = _Preparation(_json(folder, "preprocessor_config.json"), folder)
        self.model = _load(folder)
        labels: Mapping[int, str] = self.model.config.id2label
        names = [labels[i] for i in range(len(labels))]
        unknown = [c for c in concepts if c not in names]
        if unknown:
            raise ValueError(f"{folder} has no label {', '.join(unknown)}; it has: {', '.join(dict.fromkeys(names))}")
        self.concepts = tuple(dict.fromkeys(concepts or names))
        index = {name: i for i, name in enumerate(self.concepts)}
        self._concept_of = torch.tensor([index.get(name, -1) for name in names])

    def _segment(self, samples: Samples) -> Tensor:
        images = samples.rescale((0.0, 1.0)).images.float()
        if images.shape[1] not in (1, 3):
            raise InputError(f"segmenter/transformers takes gray or colour images, not {images.shape[1]} channels")
        self.model.to(images.device)
        logits = self.model(pixel_values=self._prepare(images.expand(-1, 3, -1, -1))).logits
        numbers = torch.arange(len(self.concepts), device=images.device)[:, None, None]
        masks = []
        for each in logits:  # one by one: at full size the logits of a batch would take gigabytes
            large = F.interpolate(each[None], images.shape[2:], mode="bilinear", align_corners=False)[0]
            masks.append(self._concept_of.to(images.device)[large.argmax(0)] == numbers)
        return torch.stack(masks)


class _Preparation:
    """What an image processor's file says to do with images ``[N, 3, H, W]`` in (0, 1)."""

    def __init__(self, said: Mapping[str, Any], folder: Path) -> None:
        where = f"{folder}: preprocessor_config.json"
        self.size = said.get("size") if said.get("do_resize", True) else None
        if isinstance(self.size, int):
            self.size = {"height": self.size, "width": self.size}
        if self.size is not None:
            if set(self.size) not in ({"shortest_edge"}, {"height", "width"}):
                raise ValueError(f"{where}: size {self.size} is neither height and width nor shortest_edge")
            if said.get("resample", 2) not in _FILTERS:
                raise ValueError(f"{where}: resample {said['resample']} is not one of {', '.join(map(str, _FILTERS))}")
            if said.get("keep_aspect_ratio"):
                raise ValueError(f"{where}: keep_aspect_ratio is not supported; set it to false")
        self.filter = _FILTERS.get(said.get("resample", 2), "")
        self.factor = 255 * said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 255.0
        missing = [key for key in ("image_mean", "image_std") if key not in said]
        normalised = said.get("do_normalize", not missing)
        if normalised and missing:
            raise ValueError(f"{where}: has no {' and no '.join(missing)}")
        self.mean: list[float] = said["image_mean"] if normalised else [0.0] * 3
        self.std: list[float] = said["image_std"] if normalised else [1.0] * 3
        self.flipped = bool(said.get("do_flip_channel_order"))

    def __call__(self, images: Tensor) -> Tensor:
        if self.size is not None:
            smooth = self.filter != "nearest-exact"
            images = F.interpolate(images, self._target(images), mode=self.filter, antialias=smooth)
            images = images.clamp(0, 1)  # a bicubic filter overshoots
        images = images * self.factor
        mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        images = (images - mean) / std
        return images.flip(1) if self.flipped else images

    def _target(self, images: Tensor) -> list[int]:
        size: Mapping[str, int] = self.size or {}
        if "height" in size:
            return [size["height"], size["width"]]
        sides = images.shape[2:]
        return [int(size["shortest_edge"] * s / min(sides)) for s in sides]


def _json(folder: Path, name: str) -> Mapping[str, Any]:
    if not (folder / name).is_file():
        raise ValueError(
            f"{folder} has no {name}; give the folder that save_pretrained of the model, and of its image processor, "
            f"wrote"
        )
    read = storage.read_json(folder / name)
    if isinstance(read, dict):
        return read
    raise ValueError(f"{folder / name}: damaged: it holds a {type(read).__name__}, not an object")


def _load(folder: Path) -> Any:
    said = _json(folder, "config.json")
    if refused := foreign(folder, said):
        raise ValueError(f"{folder} is not read: {refused}")
    try:
        from transformers import AutoConfig, AutoModelForSemanticSegmentation
    except ImportError:
        raise ValueError("segmenter/transformers needs the transformers library: pip install transformers") from None
    try:
        # config.json can name a kernel of a hub as its attention. What is given below overrides that, however it is
        # spelt, only where the configuration has been read before.
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, told = AutoModelForSemanticSegmentation.from_pretrained(
            folder,
            config=config,
            attn_implementation="eager",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # the library raises whatever its many parts do
        raise ValueError(f"{folder} cannot be read as a semantic-segmentation model: {one_line(error)}") from error
    missing = [*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])]
    if missing:
        raise ValueError(f"{folder}: weights are missing or do not fit, such as {missing[0]}")
    return model.eval()
