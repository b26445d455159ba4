"""How long the full-size model takes from a photograph to its panoptic result, and with how much memory.

Three paths share one ConvNeXt-L backbone and see the same picture, in one run:

* ``ours``: the model as shipped.
* ``plain``: the same weights without its shortcuts. Deformable attention by ``grid_sample``; in every decoder layer
  stride-4 masks of all queries, resized for the attention, and class logits; at the end the masks of all queries
  up-sampled to the full size before anything is dropped. Written below, by the book.
* ``mask2former``: transformers' Mask2Former head of the same sizes with its own post-processing.

Weights are random, so queries hold no classes and masks no shapes, and these decide what post-processing costs. Before
it, therefore, all three paths get the same stand-ins: masks that are noisy discs of many sizes, and class logits with
which 50 queries (as in a busy picture), or all 300, hold a class while the others are void. Repeats of the paths
alternate; medians are reported. Peak memory is taken in a process of its own for each path.

    python benchmarks/segment.py            # about a quarter of an hour on two cores
    python benchmarks/segment.py --quick    # tiny sizes, seconds: shows that it runs, measures nothing
"""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from unittest import mock

import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ConvNextConfig, Mask2FormerConfig, Mask2FormerForUniversalSegmentation
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

from omgvision.evaluation.machine import cpu_name
from omgvision.models.omg_seg import linear_omg_seg, pixel_decoder_omg_seg
from omgvision.models.omg_seg.classifier_omg_seg import class_logits
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.position_omg_seg import sine_position_3d
from omgvision.output_files import write_json

HERE = Path(__file__).resolve().parent
PHOTOGRAPH = HERE.parent / "examples" / "images" / "raccoon.jpg"

PathName = Literal["ours", "plain", "mask2former"]
PATHS: tuple[PathName, ...] = ("ours", "plain", "mask2former")
STAGES = ("pre-processing", "backbone", "pixel decoder", "decoder", "post-processing")


@dataclass(frozen=True)
class Setup:
    """Sizes of the model and what is measured."""

    config: OmgSegConfig
    classes: int
    prototypes: int
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of the pictures, which the network sees at this size."""
    survivors: tuple[int, ...]
    repeats: int


def full_setup(repeats: int) -> Setup:
    config = OmgSegConfig()
    return Setup(
        config=config,
        classes=133,
        prototypes=3,
        sizes=((480, 640), (1024, 1024)),
        survivors=(50, config.num_queries),
        repeats=repeats,
    )


def quick_setup() -> Setup:
    config = OmgSegConfig(
        backbone_config=ClipConvNextConfig(hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1]),
        hidden_size=64,
        num_attention_heads=4,
        num_queries=12,
        encoder_layers=2,
        encoder_ffn_dim=128,
        decoder_layers=3,
        decoder_ffn_dim=128,
        embedding_dim=32,
    )
    return Setup(config=config, classes=7, prototypes=2, sizes=((96, 128),), survivors=(4,), repeats=2)


class Clock:
    """Seconds of each stage of one run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @contextmanager
    def calls(self, module: nn.Module, name: str) -> Iterator[None]:
        """Adds the time inside the module's calls to a stage."""
        starts: list[float] = []

        def before(*_: Any) -> None:
            starts.append(time.perf_counter())

        def after(*_: Any) -> None:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - starts.pop()

        with module.register_forward_pre_hook(before), module.register_forward_hook(after):
            yield


@dataclass(frozen=True)
class Decisions:
    """Stands in for the predictions of a trained model: class logits [1, Q, K + 1] and mask logits [1, Q, h, w]."""

    classes: Tensor
    masks: Tensor


def decisions(setup: Setup, size: tuple[int, int], survivors: int) -> Decisions:
    """Queries spread evenly hold a class with a probability near 1; every mask is a noisy disc with a soft outline."""
    generator = torch.Generator().manual_seed(0)
    queries = setup.config.num_queries
    classes = torch.zeros(1, queries, setup.classes + 1)
    chosen = torch.linspace(0, queries - 1, survivors).long()
    labels = torch.randint(setup.classes, (survivors,), generator=generator)
    classes[..., -1] = 20.0
    classes[0, chosen, labels] = 30.0 + torch.rand(survivors, generator=generator)

    height, width = size[0] // 4, size[1] // 4
    y, x, radius = torch.rand(3, queries, 1, 1, generator=generator)
    rows, columns = torch.arange(height).view(-1, 1) - y * height, torch.arange(width) - x * width
    inside = (0.02 + 0.2 * radius) * (height + width) - (rows.square() + columns.square()).sqrt()
    noise = 0.5 * torch.randn(queries, height, width, generator=generator)
    return Decisions(classes, (inside.clamp(-8, 8) + noise)[None])


def build_ours(setup: Setup) -> OmgSegForUniversalSegmentation:
    torch.manual_seed(0)
    model = OmgSegForUniversalSegmentation(setup.config).eval()
    embeddings = F.normalize(torch.randn(setup.classes, setup.prototypes, setup.config.embedding_dim), dim=-1)
    thing_mask = torch.arange(setup.classes) < round(setup.classes * 0.6)
    model.set_class_embeddings(embeddings, thing_mask)
    return model


def build_mask2former(setup: Setup, backbone: nn.Module) -> Mask2FormerForUniversalSegmentation:
    """The same sizes throughout; a stand-in gives the feature widths, then the shared backbone takes its place."""
    torch.manual_seed(0)
    ours = setup.config
    stand_in = ConvNextConfig(
        hidden_sizes=list(ours.backbone_config.hidden_sizes),  # type: ignore[union-attr]
        depths=[0, 0, 0, 0],
        out_features=["stage1", "stage2", "stage3", "stage4"],  # pyright: ignore[reportCallIssue]
    )
    config = Mask2FormerConfig(
        backbone_config=stand_in,
        feature_size=ours.hidden_size,
        mask_feature_size=ours.hidden_size,
        hidden_dim=ours.hidden_size,
        num_attention_heads=ours.num_attention_heads,
        encoder_layers=ours.encoder_layers,
        encoder_feedforward_dim=ours.encoder_ffn_dim,
        decoder_layers=ours.decoder_layers + 1,  # transformers counts the prediction before the first layer
        dim_feedforward=ours.decoder_ffn_dim,
        num_queries=ours.num_queries,
        num_labels=setup.classes,  # pyright: ignore[reportCallIssue]
    )
    model = Mask2FormerForUniversalSegmentation(config).eval()
    model.model.pixel_level_module.encoder = backbone
    return model


Panoptic = tuple[Tensor, list[Any]]
"""Segment ids [H, W] and what is known of each segment."""


class Runner(Protocol):
    """One path from a picture to its panoptic result."""

    def predict(self, image: Image.Image, clock: Clock) -> Any:
        """Everything before post-processing; adds its seconds to the clock."""
        ...

    def decide(self, outputs: Any, decided: Decisions, size: tuple[int, int]) -> Panoptic:
        """Post-processing to a result of (height, width)."""
        ...


class Ours:
    """The model as shipped."""

    def __init__(self, model: OmgSegForUniversalSegmentation) -> None:
        self.model = model
        self.processor = OmgSegImageProcessor()

    def predict(self, image: Image.Image, clock: Clock) -> Any:
        with clock.stage("pre-processing"):
            inputs = self.processor(image, size=_same_size(image), return_tensors="pt")
        parts = self.model.model
        with (
            clock.calls(parts.backbone, "backbone"),
            clock.calls(parts.pixel_decoder, "pixel decoder"),
            clock.stage("decoder"),
        ):
            outputs = self.model(**inputs)
        clock.seconds["decoder"] -= clock.seconds["backbone"] + clock.seconds["pixel decoder"]
        return outputs

    def decide(self, outputs: Any, decided: Decisions, size: tuple[int, int]) -> Panoptic:
        outputs.class_queries_logits, outputs.masks_queries_logits = decided.classes, decided.masks
        result = self.processor.post_process_panoptic_segmentation(outputs, threshold=0.0, target_sizes=[size])[0]
        return result["segmentation"], result["segments_info"]


class Plain:
    """The same weights without the shortcuts."""

    def __init__(self, model: OmgSegForUniversalSegmentation) -> None:
        self.model = model
        self.processor = OmgSegImageProcessor()

    def predict(self, image: Image.Image, clock: Clock) -> Any:
        with clock.stage("pre-processing"):
            pixels = self.processor(image, size=_same_size(image), return_tensors="pt")["pixel_values"]
        with clock.stage("backbone"):
            features = self.model.model.backbone(pixels).feature_maps
        with (
            mock.patch.object(linear_omg_seg, "inference_on_cpu", return_value=False),
            mock.patch.object(pixel_decoder_omg_seg, "inference_on_cpu", return_value=False),
        ):
            with clock.stage("pixel decoder"):
                mask_features, memories, shapes = self.model.model.pixel_decoder(features)
            with clock.stage("decoder"):
                self.decode(mask_features[:, :, None], memories, shapes)
        return tuple(pixels.shape[-2:])

    def decide(self, outputs: Any, decided: Decisions, size: tuple[int, int]) -> Panoptic:
        masks = F.interpolate(decided.masks, size=outputs, mode="bilinear", align_corners=False)
        masks = masks[..., : size[0], : size[1]]
        masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)[0]
        return self.fuse(decided.classes[0], masks)

    def decode(self, mask_features: Tensor, memories: Sequence[Tensor], shapes: Sequence[tuple[int, int]]) -> Tensor:
        """mask_features [B, C, 1, h, w] → mask logits [B, Q, 1, h, w] of the last layer."""
        model, decoder = self.model.model, self.model.model.mask_decoder
        queries, positions = model.query_features[None], model.query_positions[None]
        for index in range(len(decoder.layers) + 1):
            features = decoder.post_norm(queries)
            masks = torch.einsum("bqc,bcthw->bqthw", decoder.mask_embed(features), mask_features)
            embeddings = self.model.classifier(features, masks, mask_features)
            class_logits(embeddings, self.model.class_embeddings, self.model.config.logit_scale)
            if index == len(decoder.layers):
                return masks
            level = index % len(memories)
            resized = F.interpolate(masks[:, :, 0], size=shapes[level], mode="bilinear", align_corners=False)
            allowed = resized.flatten(2).sigmoid() >= 0.5
            allowed[~allowed.any(-1)] = True
            values = memories[level] + decoder.level_embed[level]
            keys = values + sine_position_3d(1, *shapes[level], values.shape[-1] // 2, device=values.device)
            queries = decoder.layers[index](queries, positions, keys, values, allowed, None)
        raise AssertionError("unreachable")

    def fuse(self, logits: Tensor, masks: Tensor) -> Panoptic:
        """Panoptic fusion as the original has it: logits [Q, K + 1], masks [Q, H, W]."""
        scores, labels = logits.softmax(-1).max(-1)
        kept = labels != logits.shape[-1] - 1
        probabilities = masks.sigmoid()[kept]
        scores, labels = scores[kept], labels[kept]
        owner = (scores[:, None, None] * probabilities).argmax(0)
        segmentation = torch.zeros(masks.shape[-2:], dtype=torch.int32)
        segments: list[Any] = []
        stuff: dict[int, int] = {}
        things = self.model.thing_mask
        for query, label in enumerate(labels.tolist()):
            own, whole = owner == query, probabilities[query] >= 0.5
            area, original = int(own.sum()), int(whole.sum())
            if not area or not original or area / original < 0.8:
                continue
            own = own & whole
            if not own.any():
                continue
            if not things[label] and label in stuff:
                segmentation[own] = stuff[label]
                continue
            number = len(segments) + 1
            stuff[label] = number
            segmentation[own] = number
            segments.append({"id": number, "label_id": label})
        return segmentation, segments


class Mask2Former:
    """transformers' head over the same backbone."""

    def __init__(self, model: Mask2FormerForUniversalSegmentation) -> None:
        self.model = model
        self.processor = OmgSegImageProcessor()
        self.post_processor = Mask2FormerImageProcessorPil()

    def predict(self, image: Image.Image, clock: Clock) -> Any:
        with clock.stage("pre-processing"):
            pixels = self.processor(image, size=_same_size(image), return_tensors="pt")["pixel_values"]
        parts = self.model.model.pixel_level_module
        with (
            clock.calls(parts.encoder, "backbone"),
            clock.calls(parts.decoder, "pixel decoder"),
            clock.stage("decoder"),
        ):
            outputs = self.model(pixel_values=pixels)
        clock.seconds["decoder"] -= clock.seconds["backbone"] + clock.seconds["pixel decoder"]
        return outputs

    def decide(self, outputs: Any, decided: Decisions, size: tuple[int, int]) -> Panoptic:
        outputs.class_queries_logits, outputs.masks_queries_logits = decided.classes, decided.masks
        result = self.post_processor.post_process_panoptic_segmentation(
            outputs, threshold=0.0, label_ids_to_fuse=set(), target_sizes=[size]
        )[0]
        return result["segmentation"], result["segments_info"]


def _same_size(image: Image.Image) -> dict[str, int]:
    return {"longest_edge": max(image.size), "shortest_edge": min(image.size)}


def picture(size: tuple[int, int]) -> Image.Image:
    height, width = size
    return Image.open(PHOTOGRAPH).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def build(path: PathName, setup: Setup, model: OmgSegForUniversalSegmentation) -> Runner:
    if path == "ours":
        return Ours(model)
    if path == "plain":
        return Plain(model)
    return Mask2Former(build_mask2former(setup, model.model.backbone))


def measure_time(setup: Setup) -> dict[str, Any]:
    """{size: {survivors: {path: {"median": {stage: seconds}, "runs": [{stage: seconds}]}}}}."""
    model = build_ours(setup)
    runners = {path: build(path, setup, model) for path in PATHS}
    report: dict[str, Any] = {}
    for size in setup.sizes:
        image = picture(size)
        every = {str(survivors): decisions(setup, size, survivors) for survivors in setup.survivors}
        runs: dict[str, dict[str, list[dict[str, float]]]] = {key: {path: [] for path in PATHS} for key in every}
        for repeat in range(setup.repeats):
            for path, runner in runners.items():
                gc.collect()
                clock = Clock()
                with torch.inference_mode():
                    outputs = runner.predict(image, clock)
                    for survivors, decided in every.items():
                        late = Clock()
                        with late.stage("post-processing"):
                            runner.decide(outputs, decided, size)
                        runs[survivors][path].append(clock.seconds | late.seconds)
                del outputs
                print(f"{_name(size)} {path} {repeat}: {sum(clock.seconds.values()):.2f} s + post", flush=True)
        report[_name(size)] = {key: {path: _summary(by_path[path]) for path in PATHS} for key, by_path in runs.items()}
    return report


def _name(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    median: dict[str, float] = {stage: statistics.median(run[stage] for run in runs) for stage in STAGES}
    median["whole"] = statistics.median(sum(run.values()) for run in runs)
    return {"median": median, "runs": runs}


def resident_bytes(field: Literal["VmRSS", "VmHWM"]) -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024
    # Elsewhere only the highest value so far is to be had: bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_memory(setup: Setup, path: PathName, size: tuple[int, int], survivors: int) -> int:
    """Bytes that one run of a path needs above the loaded weights, at its peak; to be called in a fresh process."""
    runner = build(path, setup, build_ours(setup))
    image = picture(size)
    decided = decisions(setup, size, survivors)
    gc.collect()
    loaded = resident_bytes("VmRSS")
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the peak starts again from what is resident now
    with torch.inference_mode():
        runner.decide(runner.predict(image, Clock()), decided, size)
    return resident_bytes("VmHWM") - loaded


def measure_memory_apart(setup: Setup, *, quick: bool) -> dict[str, Any]:
    """{size: {survivors: {path: bytes}}}, each in a process of its own."""
    report: dict[str, Any] = {}
    for size in setup.sizes:
        for survivors in setup.survivors:
            for path in PATHS:
                command = [sys.executable, str(Path(__file__).resolve()), "--memory-of", path]
                command += ["--size", f"{size[0]}", f"{size[1]}", "--survivors", str(survivors)]
                command += ["--quick"] if quick else []
                finished = subprocess.run(command, check=True, capture_output=True, text=True)
                peak = json.loads(finished.stdout.splitlines()[-1])["peak_bytes"]
                print(f"{_name(size)} {survivors} {path}: {peak / 2**20:.0f} MiB above the weights", flush=True)
                report.setdefault(_name(size), {}).setdefault(str(survivors), {})[path] = peak
    return report


def ratios(seconds: dict[str, Any], memory: dict[str, Any]) -> dict[str, Any]:
    """What the times and bytes come to, for each size and number of survivors."""
    report: dict[str, Any] = {}
    for size, by_survivors in seconds.items():
        for survivors, by_path in by_survivors.items():
            ours, ours_bytes = by_path["ours"]["median"], memory[size][survivors]["ours"]
            entry: dict[str, float] = {"whole over backbone": ours["whole"] / ours["backbone"]}
            for other in ("plain", "mask2former"):
                theirs = by_path[other]["median"]
                for stage in (*STAGES[2:], "whole"):
                    entry[f"{stage}: {other} over ours"] = theirs[stage] / ours[stage]
                late = ("decoder", "post-processing")
                entry[f"decoder and post-processing: {other} over ours"] = sum(theirs[stage] for stage in late) / sum(
                    ours[stage] for stage in late
                )
                entry[f"memory: ours over {other}"] = ours_bytes / memory[size][survivors][other]
            report.setdefault(size, {})[survivors] = entry
    return report


def machine() -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Times and memory of the full-size model, beside two other paths.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file; benchmarks/results/segment.json unless --quick")
    parser.add_argument("--memory-of", choices=PATHS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--survivors", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    setup = quick_setup() if options.quick else full_setup(options.repeats)
    transformers.logging.set_verbosity_error()

    if options.memory_of:
        peak = measure_memory(setup, options.memory_of, tuple(options.size), options.survivors)
        print(json.dumps({"peak_bytes": peak}))
        return

    seconds = measure_time(setup)
    memory = measure_memory_apart(setup, quick=options.quick)
    report = {
        "command": "python benchmarks/segment.py" + (" --quick" if options.quick else ""),
        "machine": machine(),
        "repeats": setup.repeats,
        "seconds": seconds,
        "peak_bytes_above_weights": memory,
        "ratios": ratios(seconds, memory),
    }
    output = options.output or (None if options.quick else HERE / "results" / "segment.json")
    if output is None:
        print(json.dumps(report["ratios"], indent=1))
        return
    write_json(output, report)
    print(f"wrote {output}; python benchmarks/make_tables.py puts it into the README")


if __name__ == "__main__":
    main()
