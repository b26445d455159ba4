"""Pictures to network inputs, and outputs to results, without torchvision or OpenCV.

The original resizes with OpenCV: bilinear without antialiasing, rounded to whole grey levels. `F.interpolate` and
rounding give the same within one level; Pillow differs by up to eight when shrinking.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs
from transformers.utils.generic import ModelOutput

from .postprocessing_omg_seg import (
    InstanceMasks,
    MaskSizes,
    Size,
    instances,
    panoptic,
    prompt_masks,
    proposals,
    semantic,
)


class OmgSegImageProcessorKwargs(ImagesKwargs, total=False):
    """`size_divisor`: both sides of the canvas are padded to a multiple of this."""

    size_divisor: int


class SegmentationOutputs(Protocol):
    """What post-processing reads of `OmgSegOutput`."""

    @property
    def class_queries_logits(self) -> Tensor | None: ...
    @property
    def fused_class_logits(self) -> Tensor | None: ...
    @property
    def masks_queries_logits(self) -> Tensor | None: ...
    @property
    def iou_logits(self) -> Tensor | None: ...
    @property
    def image_sizes(self) -> Tensor | None: ...
    @property
    def canvas_size(self) -> Tensor | None: ...
    @property
    def thing_mask(self) -> Tensor | None: ...
    @property
    def prompt_mask(self) -> Tensor | None: ...


def resized_size(image: Size, size: SizeDict) -> Size:
    """(height, width) after resizing: as large as fits into the long and the short edge, whichever side they meet.

    Small pictures grow. Each side is int(side · factor + 0.5), as in the original, and at least one pixel.
    """
    if size.height and size.width:
        return size.height, size.width
    limits = []
    if size.longest_edge:
        limits.append(size.longest_edge / max(image))
    if size.shortest_edge:
        limits.append(size.shortest_edge / min(image))
    if not limits:
        raise ValueError(
            f"size: expected longest_edge and shortest_edge (or one of them), or height and width, got {dict(size)}"
        )
    height, width = (max(1, int(side * min(limits) + 0.5)) for side in image)
    return height, width


class OmgSegImageProcessor(BaseImageProcessor):
    """Resizes, normalises and pads pictures; turns outputs into label maps and masks.

    Takes PIL images, arrays [H,W], [H,W,1|3|4] or [3,H,W], and tensors [3,H,W], with values 0 to 255, one or a list.
    Gives `pixel_values` [B,3,H,W] and `pixel_mask` [B,H,W] (True on the picture, which lies at the top left; the rest
    is mean grey). The canvas is common to the batch: the largest height and width, up to a multiple of `size_divisor`.

    With `resample=PILImageResampling.BICUBIC` (or any other but BILINEAR) Pillow resizes.
    """

    valid_kwargs = OmgSegImageProcessorKwargs
    model_input_names = ["pixel_values", "pixel_mask"]
    backend = "torch"

    do_convert_rgb = True
    do_resize = True
    size = {"longest_edge": 1333, "shortest_edge": 800}
    default_to_square = False
    resample = PILImageResampling.BILINEAR
    do_rescale = False
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = [123.675, 116.28, 103.53]
    image_std = [58.395, 57.12, 57.375]
    do_pad = True
    size_divisor = 32

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)

    # ------------------------------------------------------------------------------------------------- pictures in

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[Any]:
        # Unlike the base class's, this lets grey arrays [H,W] through.
        images = self.fetch_images(images)
        if isinstance(images, np.ndarray | Tensor) and images.ndim > expected_ndims:
            return list(images)
        if not isinstance(images, list | tuple):
            return [images]
        flat = [image for item in images for image in (item if isinstance(item, list | tuple) else [item])]
        if not flat:
            raise ValueError("images: expected at least one picture, got an empty list")
        return flat

    def to_tensors(self, images: Any, *, input_data_format: str | ChannelDimension | None = None) -> list[Tensor]:
        """All pictures as `process_image` gives them, not resized."""
        return [
            self.process_image(image, input_data_format=input_data_format)
            for image in self._prepare_images_structure(images)
        ]

    def process_image(
        self,
        image: Any,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        device: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """One picture as a [3,H,W] view of its pixels, uint8 or float32.

        Raises:
            ValueError: not a picture, without pixels, or with another number of channels.
        """
        if isinstance(image, Image.Image):
            pixels = torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB")))
        elif isinstance(image, np.ndarray | Tensor):
            pixels = torch.as_tensor(np.ascontiguousarray(image) if isinstance(image, np.ndarray) else image)
        else:
            raise ValueError(f"image: expected a PIL image, an array or a tensor, got {type(image).__name__}")
        if pixels.ndim == 2:
            pixels = pixels[None]
        elif pixels.ndim == 3 and _channels_last(pixels, given=input_data_format, tensor=isinstance(image, Tensor)):
            pixels = pixels.permute(2, 0, 1)
        if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4) or pixels.numel() == 0:
            raise ValueError(
                "image: expected shape [H, W], [H, W, 1|3|4] or [3, H, W] with at least one pixel, "
                f"got {list(image.shape) if not isinstance(image, Image.Image) else list(image.size)}"
            )
        if pixels.dtype != torch.uint8:
            pixels = pixels.float()
        return pixels[:3].expand(3, -1, -1).to(device or pixels.device)

    def _preprocess(
        self,
        images: list[Tensor],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | Sequence[float],
        image_std: float | Sequence[float],
        do_pad: bool,
        pad_size: SizeDict | None,
        size_divisor: int,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        if do_resize:
            images = [
                _resize(image, resized_size((image.shape[1], image.shape[2]), size), resample) for image in images
            ]
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (max(sides) for sides in zip(*sizes, strict=True))
        if pad_size is not None and pad_size.height and pad_size.width:
            if height > pad_size.height or width > pad_size.width:
                raise ValueError(
                    f"pad_size: expected at least {height}x{width}, got {pad_size.height}x{pad_size.width}"
                )
            height, width = pad_size.height, pad_size.width
        elif do_pad:
            height, width = (-(-side // size_divisor) * size_divisor for side in (height, width))
        elif any(size != (height, width) for size in sizes):
            raise ValueError(f"images: without do_pad all must have one size, got {sizes}; set do_pad=True")

        factor = rescale_factor if do_rescale else 1.0
        mean, std = (
            torch.as_tensor(value if do_normalize else default, dtype=torch.float32).reshape(-1, 1, 1)
            for value, default in ((image_mean, 0.0), (image_std, 1.0))
        )
        device = images[0].device
        pixel_values = torch.zeros(len(images), 3, height, width, device=device)
        pixel_mask = torch.zeros(len(images), height, width, dtype=torch.bool, device=device)
        for index, (image, (rows, columns)) in enumerate(zip(images, sizes, strict=True)):
            # (x · factor - mean) / std, written straight onto the canvas.
            target = pixel_values[index, :, :rows, :columns]
            torch.sub(image if factor == 1.0 else image * factor, mean.to(device), out=target).div_(std.to(device))
            pixel_mask[index, :rows, :columns] = True
        data = {"pixel_values": pixel_values, "pixel_mask": pixel_mask}
        return BatchFeature(data=data, tensor_type=return_tensors)

    # ------------------------------------------------------------------------------------------------- results out

    def post_process_panoptic_segmentation(
        self,
        outputs: SegmentationOutputs,
        threshold: float = 0.0,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        label_ids_to_fuse: Iterable[int] | None = None,
        target_sizes: Sequence[Size] | Tensor | None = None,
    ) -> list[dict[str, Any]]:
        """Panoptic maps; see `panoptic` for the arguments, whose defaults are the original's settings.

        Args:
            outputs: of the model.
            label_ids_to_fuse: classes whose segments become one; None = all that are not things.
            target_sizes: (height, width) of each result; None = the size of the network input without padding.

        Returns:
            For each picture `segmentation` (int32 [H,W], 0 where nothing is) and `segments_info`, a list of dicts with
            `id`, `label_id`, `score`, `was_fused`, `is_thing`, `area`.
        """
        things = _things(outputs)
        separate = things.clone()
        if label_ids_to_fuse is not None:
            separate[:] = True
            separate[list(label_ids_to_fuse)] = False
        results = []
        for class_logits, mask_logits, sizes in _each(outputs, target_sizes):
            segmentation, segments = panoptic(
                class_logits,
                mask_logits=mask_logits,
                thing_mask=separate,
                sizes=sizes,
                threshold=threshold,
                mask_threshold=mask_threshold,
                overlap_threshold=overlap_mask_area_threshold,
            )
            segments_info = [
                {
                    "id": segment.id,
                    "label_id": segment.label_id,
                    "score": round(segment.score, 6),
                    "was_fused": segment.was_fused,
                    "is_thing": bool(things[segment.label_id]),
                    "area": segment.area,
                }
                for segment in segments
            ]
            results.append({"segmentation": segmentation, "segments_info": segments_info})
        return results

    def post_process_semantic_segmentation(
        self, outputs: SegmentationOutputs, target_sizes: Sequence[Size] | Tensor | None = None
    ) -> list[Tensor]:
        """A class id for every pixel, int64 [H,W] a picture; see `semantic`."""
        return [
            semantic(class_logits, mask_logits=mask_logits, sizes=sizes)
            for class_logits, mask_logits, sizes in _each(outputs, target_sizes)
        ]

    def post_process_instance_segmentation(
        self,
        outputs: SegmentationOutputs,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        target_sizes: Sequence[Size] | Tensor | None = None,
        return_binary_maps: bool = False,
        max_instances: int = 100,
    ) -> list[dict[str, Any]]:
        """Instances of the countable classes, best first; see `instances`.

        Args:
            threshold: on class probability × mean mask probability.
            mask_threshold: probability from which a pixel belongs to an instance.
            overlap_mask_area_threshold: accepted for the pipeline's sake; instances may overlap.
            return_binary_maps: return every mask whole. Otherwise one map, where the better instance covers the worse.

        Returns:
            For each picture `segmentation` (int32 [H,W] of ids, -1 where nothing is; or bool [N,H,W] in the order of
            the list) and `segments_info`, a list of dicts with `id`, `label_id`, `score`, `was_fused`.
        """
        things = _things(outputs)
        results = []
        for class_logits, mask_logits, sizes in _each(outputs, target_sizes):
            found = instances(
                class_logits,
                mask_logits=mask_logits,
                thing_mask=things,
                sizes=sizes,
                max_instances=max_instances,
                threshold=threshold,
                mask_threshold=mask_threshold,
            )
            segmentation = found.masks
            if not return_binary_maps:
                segmentation = torch.full(sizes.target, -1, dtype=torch.int32, device=found.masks.device)
                for index in reversed(range(len(found.masks))):
                    segmentation[found.masks[index]] = index
            segments_info = [
                {"id": index, "label_id": label, "score": round(score, 6), "was_fused": False}
                for index, (label, score) in enumerate(zip(found.labels.tolist(), found.scores.tolist(), strict=True))
            ]
            results.append({"segmentation": segmentation, "segments_info": segments_info})
        return results

    def post_process_proposals(
        self,
        outputs: SegmentationOutputs,
        threshold: float = 0.0,
        nms_threshold: float | None = 0.7,
        max_proposals: int = 100,
        target_sizes: Sequence[Size] | Tensor | None = None,
    ) -> list[InstanceMasks]:
        """Masks of everything, without classes; see `proposals`."""
        iou_logits = _required(outputs.iou_logits, "iou_logits")
        return [
            proposals(
                iou_logits[index],
                mask_logits=mask_logits,
                sizes=sizes,
                max_proposals=max_proposals,
                threshold=threshold,
                nms_threshold=nms_threshold,
            )
            for index, (mask_logits, sizes) in enumerate(_masks(outputs, target_sizes))
        ]

    def post_process_prompts(
        self, outputs: SegmentationOutputs, target_sizes: Sequence[Size] | Tensor | None = None
    ) -> list[Tensor]:
        """Masks bool [N,H,W] of each picture's prompts, in their order (points, boxes, masks), padding left out."""
        real = outputs.prompt_mask
        return [
            prompt_masks(mask_logits if real is None else mask_logits[real[index].to(mask_logits.device)], sizes=sizes)
            for index, (mask_logits, sizes) in enumerate(_masks(outputs, target_sizes))
        ]


def _channels_last(pixels: Tensor, *, given: str | ChannelDimension | None, tensor: bool) -> bool:
    if given is not None:
        return ChannelDimension(given) is ChannelDimension.LAST
    first, last = (pixels.shape[axis] in (1, 3, 4) for axis in (0, 2))
    return last and not (first and tensor)  # where both fit: arrays are channels-last, tensors channels-first


def _resize(image: Tensor, size: Size, resample: PILImageResampling) -> Tensor:
    """[3,H,W] at another size, in whole grey levels, float32."""
    if tuple(image.shape[1:]) == size:
        return image
    if resample == PILImageResampling.BILINEAR:
        resized = F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[0]
        return resized if image.is_floating_point() else resized.round_()
    if image.is_floating_point():
        raise ValueError(f"images: resampling with Pillow ({resample!r}) needs values of type uint8, got float")
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    resized = np.array(picture.resize((size[1], size[0]), Image.Resampling(resample)))
    return torch.from_numpy(resized).permute(2, 0, 1).to(image.device)


def _required(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ValueError(f"outputs: expected {name}, got None; pass the output of OmgSegForUniversalSegmentation")
    return value


def _things(outputs: SegmentationOutputs) -> Tensor:
    if outputs.thing_mask is None:
        raise ValueError(
            "outputs: expected thing_mask (which classes are countable), got None; give it with class_embeddings"
        )
    return outputs.thing_mask.cpu()


def _masks(
    outputs: SegmentationOutputs, target_sizes: Sequence[Size] | Tensor | None
) -> list[tuple[Tensor, MaskSizes]]:
    """Mask logits [Q,h,w] and sizes of each picture."""
    mask_logits = _required(outputs.masks_queries_logits, "masks_queries_logits")
    image_sizes = _sizes(_required(outputs.image_sizes, "image_sizes"))
    canvas_height, canvas_width = _required(outputs.canvas_size, "canvas_size").tolist()
    if mask_logits.ndim != 4:
        raise ValueError(f"outputs: expected masks [B, Q, h, w] of pictures, got shape {list(mask_logits.shape)}")
    targets = image_sizes if target_sizes is None else _sizes(target_sizes)
    if len(targets) != len(mask_logits):
        raise ValueError(f"target_sizes: expected one a picture ({len(mask_logits)}), got {len(targets)}")
    return [
        (masks, MaskSizes(canvas=(canvas_height, canvas_width), image=image, target=target))
        for masks, image, target in zip(mask_logits, image_sizes, targets, strict=True)
    ]


def _sizes(values: Sequence[Size] | Tensor) -> list[Size]:
    return [(int(height), int(width)) for height, width in values]


def _each(
    outputs: SegmentationOutputs, target_sizes: Sequence[Size] | Tensor | None
) -> list[tuple[Tensor, Tensor, MaskSizes]]:
    """Class logits [Q,K+1] (fused with CLIP where they are), mask logits and sizes of each picture."""
    # transformers' pipelines hand over a plain ModelOutput, without the fields that are None.
    fused = outputs.get("fused_class_logits") if isinstance(outputs, ModelOutput) else outputs.fused_class_logits
    class_logits = _required(outputs.class_queries_logits, "class_queries_logits") if fused is None else fused
    if class_logits.shape[-1] < 2:
        raise ValueError("outputs: expected at least one class, got none; call model.set_vocabulary(names, ...) first")
    masks = _masks(outputs, target_sizes)
    return [(logits, *rest) for logits, rest in zip(class_logits, masks, strict=True)]
