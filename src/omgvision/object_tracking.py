"""Objects that the user points at, followed through a video.

By label propagation (Jabri et al. 2020, "Space-Time Correspondence as a Contrastive Random Walk"; Caron et al. 2021,
"Emerging Properties in Self-Supervised Vision Transformers"): each cell of a new frame takes the labels of the cells
that resemble it most, among all cells of the frames on which the user pointed and the nearby cells of the frame before.
What it costs hardly depends on how many objects there are, and an object that returns is found wherever it resembles
what the user pointed at. Its cells are coarse; where an object agrees with one of the masks that the object queries
find in the frame, that one's borders are seen. The prompt decoder answers on the frames with prompts alone: of the ways
to follow that `benchmarks/video_objects.py` compares, none that used it in every frame was better on videos new to the
weights.

Letters: N objects, h×w the stride-4 grid of the network input, G cells of the coarser grid of label propagation, C
width of the mask features, S frames of memory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from .models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from .models.omg_seg.outputs_omg_seg import OmgSegEncoderOutput
from .models.omg_seg.postprocessing_omg_seg import MaskSizes
from .models.omg_seg.prompt_encoder_omg_seg import region_centers
from .prompts import ObjectPrompt
from .session import prompt_logits

MAX_CELLS = 4096
"""Of the grid of label propagation, so that its cost has a bound for pictures of any size."""
NEIGHBOURS = 10
"""Cells whose labels a cell takes."""
TEMPERATURE = 0.07
"""Of the softmax over their cosines."""
WINDOW = 5
"""How many cells an object may move from one frame to the next, in each direction."""
REFERENCES = 3
"""Frames with prompts that are remembered of each object: the first one and the latest ones."""
ROWS_AT_ONCE = 512
"""Cells of the new frame that are compared at once; bounds the memory of the comparison."""
GONE = -100.0
"""Mask logit everywhere of an object that is not to be seen. Finite, so that resizing leaves it what it is."""
KNOWN = 8.0
"""Mask logit of pixels inside and, negative, outside of a region that the user gave."""
AGREEMENT = 0.7
"""IoU over which an object takes the borders of a query. Over one half, no query agrees with two objects."""


@dataclass(frozen=True, eq=False)
class _Memory:
    """A frame that labels come from: `features` [G, C] of unit length, `labels` [G, N] from 0 to 1, NaN = unknown."""

    features: Tensor
    labels: Tensor


@dataclass(eq=False)
class _Current:
    """The frame that was seen last, its logits [N, h, w], its `_Memory` and the clicks made on it, in its pixels.

    `answered` are the objects whose whole mask is the model's answer to prompts on this frame.
    """

    encoded: OmgSegEncoderOutput
    logits: Tensor
    memory: _Memory
    clicks: dict[int, ObjectPrompt] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)


def share_logits(shares: Tensor, *, grid: Sequence[int]) -> Tensor:
    """How far cells belong to objects, [N, rows, columns] from 0 to 1 → logits [N, h, w] between ∓ `KNOWN`."""
    fine = F.interpolate(shares[None], size=tuple(grid), mode="bilinear", align_corners=False)[0]
    return torch.logit(fine.double(), eps=1 / (1 + math.exp(KNOWN))).to(shares)


class ObjectTracker:
    """Follows objects through a video; memory and time a frame depend on their number, not on the video's length.

    `prompt` names objects on a frame or corrects them there, `propagate` goes on to the next frame. Both return the
    logits [N, h, w] of all objects on that frame, in the order of `object_ids`; they may overlap, the largest positive
    logit wins a pixel. An object that is not to be seen has `GONE` everywhere; it goes on being looked for.

    Attributes:
        object_ids: Numbers of the objects, in the order in which they came.
    """

    def __init__(self, model: OmgSegForUniversalSegmentation) -> None:
        self.object_ids: tuple[int, ...] = ()
        self._model = model
        self._references: list[_Memory] = []
        self._current: _Current | None = None

    @torch.inference_mode()
    def prompt(
        self, encoded: OmgSegEncoderOutput, objects: Mapping[int, ObjectPrompt], *, size: tuple[int, int]
    ) -> Tensor:
        """Names new objects or corrects known ones on a frame.

        Clicks on a known object correct the mask that it has on this frame around them; a box or a region replaces it.

        Args:
            encoded: The frame. One that was not propagated to yet is now.
            objects: Prompts in pixels of the frame, by the number of the object.
            size: (height, width) of the frame in which the prompts are given.

        Returns:
            [N, h, w], new objects last.

        Raises:
            ValueError: Without objects.
        """
        if not objects:
            raise ValueError("objects: expected a prompt of at least one object, got none")
        current = self._on_frame(encoded)
        new = [each for each in objects if each not in self.object_ids]
        self.object_ids += tuple(new)
        current.logits = F.pad(current.logits, (0, 0, 0, 0, 0, len(new)), value=GONE)
        before = F.pad(current.memory.labels, (0, len(new)))
        scale = self._sizes(encoded, size)
        for object_id, prompt in objects.items():
            row = self.object_ids.index(object_id)
            current.logits[row] = self._answer(current, object_id, prompt, current.logits[row], sizes=scale)
        self._remember([self.object_ids.index(each) for each in objects], before)
        return current.logits.clone()

    @torch.inference_mode()
    def propagate(self, encoded: OmgSegEncoderOutput) -> Tensor:
        """Goes on to the next frame.

        Returns:
            [N, h, w].

        Raises:
            ValueError: Before any object was named, or for a frame of another size.
        """
        if self._current is None:
            raise ValueError("propagate: expected objects to follow, got none; call prompt first")
        known, seen = self._current.encoded.mask_features, encoded.mask_features
        assert known is not None and seen is not None
        if known.shape[-2:] != seen.shape[-2:]:
            raise ValueError(
                f"encoded: expected a frame of the same size as before, {tuple(known.shape[-2:])}, "
                f"got {tuple(seen.shape[-2:])}"
            )
        features = self._describe(encoded)
        shares = self._transfer(features)
        # What is remembered stays as it was propagated: borders fed back drift from frame to frame.
        logits = self._with_borders(encoded, self._show(shares, grid=seen.shape[-2:]))
        self._current = _Current(encoded, logits, _Memory(features, shares.flatten(1).T))
        return logits.clone()

    # -------------------------------------------------------------------------------------------------------- prompts

    def _on_frame(self, encoded: OmgSegEncoderOutput) -> _Current:
        if self._current is None:
            assert encoded.mask_features is not None
            nothing = encoded.mask_features.new_zeros((0, *encoded.mask_features.shape[-2:]), dtype=torch.float32)
            features = self._describe(encoded)
            self._current = _Current(encoded, nothing, _Memory(features, features.new_zeros(len(features), 0)))
        elif self._current.encoded is not encoded:
            self.propagate(encoded)
        return self._current

    @staticmethod
    def _sizes(encoded: OmgSegEncoderOutput, size: tuple[int, int]) -> MaskSizes:
        assert encoded.canvas_size is not None and encoded.image_sizes is not None
        canvas_height, canvas_width = encoded.canvas_size.tolist()
        height, width = encoded.image_sizes[0].tolist()
        return MaskSizes(canvas=(canvas_height, canvas_width), image=(height, width), target=size)

    def _answer(
        self, current: _Current, object_id: int, prompt: ObjectPrompt, logits: Tensor, *, sizes: MaskSizes
    ) -> Tensor:
        """The logits [h, w] of one object on the current frame, which were `logits`."""
        if prompt.region is not None:
            region = torch.from_numpy(prompt.region)[None, None].to(logits)
            inside = F.interpolate(region, size=sizes.image, mode="area")
            height, width = sizes.canvas
            canvas = F.pad(inside, (0, width - sizes.image[1], 0, height - sizes.image[0]))
            share = F.interpolate(canvas, size=logits.shape, mode="area")[0, 0]
            # A region smaller than a cell is the cell where most of it is.
            share = torch.where(share == share.max(), share.clamp_min(0.51), share)
            return share_logits(share[None], grid=logits.shape)[0]
        before: Tensor | None = None
        if prompt.points:
            earlier = current.clicks.get(object_id, ObjectPrompt())
            if (logits > 0).any():
                before = logits
                if not earlier.points:  # one click stands for the mask that propagation found
                    x, y = region_centers(logits[None] > 0)[0].tolist()
                    scale = sizes.target[1] / sizes.image[1] * sizes.canvas[1] / logits.shape[1]
                    earlier = ObjectPrompt(points=((scale * (x + 0.5), scale * (y + 0.5)),), labels=(1,))
            prompt = ObjectPrompt(points=earlier.points + prompt.points, labels=earlier.labels + prompt.labels)
            current.clicks[object_id] = prompt
        answer = prompt_logits(self._model, current.encoded, [(prompt, before)], sizes=sizes)[0]
        if before is None or object_id in current.answered:
            current.answered.add(object_id)
            return answer
        return self._changed_at(prompt, answer, before, sizes=sizes)

    @staticmethod
    def _changed_at(clicks: ObjectPrompt, answer: Tensor, before: Tensor, *, sizes: MaskSizes) -> Tensor:
        """The logits [h, w] that clicks make of those `before`: the model's answer in the regions around the clicks.

        A region is what the answer adds, connectedly, around a positive click, and what it takes away around a negative
        one. Elsewhere nobody objected, and what was propagated is better than what a few clicks tell.
        """
        height, width = answer.shape
        rows, columns = (
            cells / canvas * image / target
            for cells, canvas, image, target in zip(answer.shape, sizes.canvas, sizes.image, sizes.target, strict=True)
        )
        chosen = np.zeros(answer.shape, dtype=bool)
        inside, was_inside = (answer > 0).cpu().numpy(), (before > 0).cpu().numpy()
        for label, differs in ((1, inside & ~was_inside), (0, was_inside & ~inside)):
            regions = np.zeros(differs.shape, dtype=np.int32)
            ndimage.label(differs, output=regions)
            clicked = {
                regions[min(int(y * rows), height - 1), min(int(x * columns), width - 1)]
                for (x, y), given in zip(clicks.points, clicks.labels, strict=True)
                if given == label
            }
            chosen |= np.isin(regions, [number for number in clicked if number])
        return torch.where(torch.from_numpy(chosen).to(answer.device), answer, before)

    def _remember(self, rows: Sequence[int], before: Tensor) -> None:
        """Makes the current frame a reference of the objects of these rows; its labels [G, N] were `before`."""
        current = self._current
        assert current is not None
        features, named = current.memory.features, self._labels(current.logits)[:, rows]
        # The others keep what was propagated, without borders, but for what these took from them.
        labels = torch.minimum(before, 1 - named.sum(1, keepdim=True))
        labels[:, rows] = named
        current.memory = _Memory(features, labels)
        changed = (labels - before).abs() > 0.5
        references = [self._learn(memory, features, labels, changed) for memory in self._references]
        known = torch.full_like(labels, math.nan)
        known[:, rows] = labels[:, rows]
        if references and references[-1].features is features:
            known = torch.where(known.isnan(), references.pop().labels, known)
        references.append(_Memory(features, known))
        # Of each object the first reference and the latest ones stay; frames that no object needs go.
        for row in range(known.shape[1]):
            of_object = [memory for memory in references if not memory.labels[0, row].isnan()]
            for memory in of_object[1 : max(1, len(of_object) - REFERENCES + 1)]:
                memory.labels[:, row] = math.nan
        self._references = [memory for memory in references if not memory.labels[0].isnan().all()]

    @staticmethod
    def _learn(memory: _Memory, features: Tensor, labels: Tensor, changed: Tensor) -> _Memory:
        """An older reference after a correction that changed some `labels` [G, N] of cells with `features` [G, C].

        It may show the same mistake and would speak for it again: its cells that resemble changed ones change too.
        """
        missing = labels.shape[1] - memory.labels.shape[1]
        known = F.pad(memory.labels, (0, missing), value=math.nan)
        if not changed.any():
            return _Memory(memory.features, known)
        alike = torch.cat([(rows @ features.T).argmax(1) for rows in memory.features.split(ROWS_AT_ONCE)])
        return _Memory(memory.features, torch.where(changed[alike] & ~known.isnan(), labels[alike], known))

    # ---------------------------------------------------------------------------------------------- label propagation

    @staticmethod
    def _grid(shape: Sequence[int]) -> tuple[int, int]:
        """The grid of label propagation for masks of (h, w)."""
        height, width = shape
        cell = math.ceil(math.sqrt(height * width / MAX_CELLS))
        return math.ceil(height / cell), math.ceil(width / cell)

    def _describe(self, encoded: OmgSegEncoderOutput) -> Tensor:
        """[G, C] of unit length."""
        assert encoded.mask_features is not None
        planes = encoded.mask_features[:, :, 0].float()
        pooled = F.adaptive_avg_pool2d(F.normalize(planes, dim=1), self._grid(planes.shape[-2:]))
        return F.normalize(pooled[0].flatten(1).T, dim=1)

    def _labels(self, logits: Tensor) -> Tensor:
        """Logits [N, h, w] → how far each cell belongs to each object, [G, N]; every pixel has one owner at most."""
        owner = logits.argmax(0)
        rows = torch.arange(len(logits), device=logits.device)[:, None, None]
        return F.adaptive_avg_pool2d(logits.sigmoid() * (rows == owner), self._grid(logits.shape[-2:])).flatten(1).T

    def _transfer(self, features: Tensor) -> Tensor:
        """The labels of a new frame with `features` [G, C]: [N, rows, columns] of the grid."""
        current = self._current
        assert current is not None
        height, width = self._grid(current.logits.shape[-2:])
        before = current.memory
        index = torch.arange(height * width, device=features.device)
        y, x = index // width, index % width
        shares = features.new_zeros(height * width, before.labels.shape[1])
        known = ~torch.stack([memory.labels[0] for memory in self._references]).isnan()
        groups = [(group, (known == group[:, None]).all(0)) for group in known.unique(dim=1).T]
        for rows in index.split(ROWS_AT_ONCE):
            near = ((y[rows, None] - y).abs() <= WINDOW) & ((x[rows, None] - x).abs() <= WINDOW)
            moved = (features[rows] @ before.features.T).masked_fill(~near, -math.inf)
            likeness = [features[rows] @ memory.features.T for memory in self._references]
            # Objects that were named on the same frames share their neighbours.
            for group, members in groups:
                chosen = [number for number, is_known in enumerate(group.tolist()) if is_known]
                every = torch.cat([*(likeness[number] for number in chosen), moved], dim=1)
                sources = [*(self._references[number] for number in chosen), before]
                labels = torch.cat([memory.labels[:, members] for memory in sources])
                best, place = every.topk(min(NEIGHBOURS, every.shape[1]), dim=1)
                weights = (best / TEMPERATURE).softmax(1)
                shares[rows[:, None], members.nonzero()[:, 0]] = (weights[..., None] * labels[place]).sum(1)
        return shares.T.unflatten(1, (height, width))

    @staticmethod
    def _show(shares: Tensor, *, grid: Sequence[int]) -> Tensor:
        """Shares [N, rows, columns] → logits [N, h, w]; `GONE` where no cell belongs to an object."""
        logits = share_logits(shares, grid=grid)
        seen = (logits > 0).flatten(1).any(1)
        return torch.where(seen[:, None, None], logits, torch.full_like(logits, GONE))

    def _with_borders(self, encoded: OmgSegEncoderOutput, logits: Tensor) -> Tensor:
        """Logits [N, h, w]; to those of an object that agrees with a query, that query's are added."""
        inside = (logits > 0).flatten(1).float()
        if not inside.any():
            return logits
        decoded = self._model.model.decode_objects(encoded)
        assert decoded.layer_mask_logits is not None
        queries = decoded.layer_mask_logits[-1][0, :, 0].float()
        found = (queries > 0).flatten(1).float()
        shared = inside @ found.T
        alike, query = (shared / (inside.sum(1)[:, None] + found.sum(1) - shared).clamp_min(1)).max(1)
        weight = torch.where(alike > AGREEMENT, alike, 0)
        return logits + weight[:, None, None] * queries[query].clamp(-KNOWN, KNOWN)
