"""The benchmarks: where their data lie, how the original was measured on them, and what was published.

Published numbers are those of OMG-Seg (Li et al., CVPR 2024). `confirmed` says whether they were read in a paper; the
others are remembered and wait for a run of the released weights. Noise is what the original's README tells of its own
runs. What OMG-LLaVA is measured on is in `language_benchmarks`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from omgvision.data.datasets import CocoInstances, YouTubeVisFrames
from omgvision.errors import UserError
from omgvision.evaluation.benchmark import Published, Row
from omgvision.evaluation.runner.clicks import ClickedObjects
from omgvision.evaluation.runner.images import InstanceImages, PanopticImages
from omgvision.evaluation.runner.labels import (
    CityscapesObjects,
    SemanticImages,
    ade20k_labels,
    camvid_labels,
    cityscapes_labels,
)
from omgvision.evaluation.runner.task import Settings, Task
from omgvision.evaluation.runner.videos import (
    ORIGINAL_VPQ,
    InstanceVideos,
    ObjectVideos,
    PanopticVideos,
    SemanticVideos,
)
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from omgvision.predictor import Predictor

Backbone = Literal["ConvNeXt-L", "ConvNeXt-XXL"]
WIDTHS: dict[tuple[int, ...], Backbone] = {
    (192, 384, 768, 1536): "ConvNeXt-L",
    (384, 768, 1536, 3072): "ConvNeXt-XXL",
}
"""Channels of the stages → the original's backbone."""


class Benchmark(Row[Predictor, OmgSegConfig, Settings]):
    """What OMG-Seg models are measured on."""

    def original_of(self, config: OmgSegConfig) -> str | None:
        return backbone_of(config)

    def published_for(self, config: OmgSegConfig) -> list[dict[str, Any]]:
        """Of its own backbone, else of the ConvNeXt-L."""
        backbone = backbone_of(config) or "ConvNeXt-L"
        return [asdict(one) for one in self.published if one.model == f"OMG-Seg {backbone}"]


def backbone_of(config: OmgSegConfig) -> Backbone | None:
    """Which of the original's backbones a model has; None = another."""
    backbone = config.backbone_config
    if not isinstance(backbone, ClipConvNextConfig):
        return None
    return WIDTHS.get(tuple(backbone.hidden_sizes))


def _omg_seg(
    number: str,
    *,
    large: float | None = None,
    huge: float | None = None,
    read: tuple[Backbone, ...] = (),
    noise: float | None = None,
    source: str = "remembered from the OMG-Seg paper, table 1",
) -> tuple[Published, ...]:
    """A column of OMG-Seg's table: with ConvNeXt-L and ConvNeXt-XXL; `read` are those that were read in `source`."""
    values: Mapping[Backbone, float | None] = {"ConvNeXt-L": large, "ConvNeXt-XXL": huge}
    remembered = "remembered from the OMG-Seg paper, table 1"
    return tuple(
        Published(
            number,
            value,
            f"OMG-Seg {backbone}",
            confirmed=backbone in read,
            source=source if backbone in read else remembered,
            noise=noise,
        )
        for backbone, value in values.items()
        if value is not None
    )


_COCO_SIZE, _VIDEO_SIZE = (1333, 800), (1280, 736)
_LLAVA_TABLE = "OMG-LLaVA paper, table 2"
_X2SAM = "quoted by X2SAM (ECCV 2026)"
_MINI_CLICKS = 5


def _coco_panoptic(root: Path, predictor: Predictor, settings: Settings) -> Task:
    annotations = root / "annotations" / "panoptic_val2017.json"
    return PanopticImages(annotations, images=root / "val2017", predictor=predictor, settings=settings)


def _coco_instances(root: Path, predictor: Predictor, settings: Settings) -> Task:
    annotations = root / "annotations" / "instances_val2017.json"
    return InstanceImages(annotations, images=root / "val2017", predictor=predictor, settings=settings)


def _coco_interactive(root: Path, predictor: Predictor, settings: Settings) -> Task:
    samples = CocoInstances(root / "annotations" / "instances_val2017.json", images=root / "val2017")
    return ClickedObjects(samples, predictor=predictor, settings=settings)


def _ade20k_panoptic(root: Path, predictor: Predictor, settings: Settings) -> Task:
    images = root / "images" / "validation"
    return PanopticImages(root / "ade20k_panoptic_val.json", images=images, predictor=predictor, settings=settings)


def _ade20k_semantic(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return SemanticImages(ade20k_labels(root), predictor=predictor, settings=settings)


def _city_file(entry: Mapping[str, Any]) -> str:
    """The json's "x_gtFine_leftImg8bit.png" is "city/x_leftImg8bit.png" on disk, x being the id."""
    return f"{str(entry['id']).split('_')[0]}/{entry['id']}_leftImg8bit.png"


def _cityscapes_panoptic(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return PanopticImages(
        root / "gtFine" / "cityscapes_panoptic_val.json",
        images=root / "leftImg8bit" / "val",
        predictor=predictor,
        settings=settings,
        image_of=_city_file,
    )


def _cityscapes_instances(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return CityscapesObjects(root, predictor=predictor, settings=settings)


def _cityscapes_semantic(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return SemanticImages(cityscapes_labels(root), predictor=predictor, settings=settings)


def _vipseg(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return PanopticVideos(root, predictor=predictor, settings=settings)


def _youtube_vis(root: Path, predictor: Predictor, settings: Settings) -> Task:
    folder = root / "valid"
    annotations = next((path for path in (folder / "instances.json", root / "valid.json") if path.is_file()), None)
    if annotations is None:
        raise UserError(f"{root}: expected valid/instances.json (2021) or valid.json (2019), got neither")
    return InstanceVideos(annotations, images=folder / "JPEGImages", predictor=predictor, settings=settings)


def _ovis(root: Path, predictor: Predictor, settings: Settings) -> Task:
    annotations = root / "annotations_valid.json"
    return InstanceVideos(annotations, images=root / "valid", predictor=predictor, settings=settings)


def _vspw(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return SemanticVideos(root, predictor=predictor, settings=settings)


def _davis(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return ObjectVideos(root, predictor=predictor, settings=settings)


def _mini_panoptic(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return PanopticImages(root / "panoptic_val.json", images=root / "images", predictor=predictor, settings=settings)


def _mini_instances(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return InstanceImages(root / "instances_val.json", images=root / "images", predictor=predictor, settings=settings)


def _mini_clicks(root: Path, predictor: Predictor, settings: Settings) -> Task:
    samples = CocoInstances(root / "instances_val.json", images=root / "images")
    return ClickedObjects(samples, predictor=predictor, settings=settings)


def _mini_davis_clicks(root: Path, predictor: Predictor, settings: Settings) -> Task:
    samples = YouTubeVisFrames(root / "instances_val.json", images=root / "JPEGImages", every=settings.every)
    return ClickedObjects(samples, predictor=predictor, settings=settings)


def _camvid(root: Path, predictor: Predictor, settings: Settings) -> Task:
    return SemanticImages(camvid_labels(root), predictor=predictor, settings=settings)


_ROWS = (
    Benchmark(
        "coco-panoptic",
        "COCO panoptic val2017",
        folders=("coco", "COCO"),
        layout=("annotations/panoptic_val2017.json", "annotations/panoptic_val2017", "val2017"),
        settings=Settings(classes="coco", size=_COCO_SIZE),
        task=_coco_panoptic,
        published=_omg_seg("PQ", large=0.538, huge=0.554, read=("ConvNeXt-L",), noise=0.005, source=_LLAVA_TABLE),
    ),
    Benchmark(
        "coco-instances",
        "COCO instances val2017",
        folders=("coco", "COCO"),
        layout=("annotations/instances_val2017.json", "val2017"),
        settings=Settings(classes="coco", size=_COCO_SIZE),
        task=_coco_instances,
        published=_omg_seg("AP", large=0.445, huge=0.465),
    ),
    Benchmark(
        "coco-interactive",
        "COCO val2017, clicks and boxes",
        folders=("coco", "COCO"),
        layout=("annotations/instances_val2017.json", "val2017"),
        settings=Settings(size=_COCO_SIZE, clicks=20),
        task=_coco_interactive,
        published=_omg_seg(
            "IoU@1", large=0.580, huge=0.593, read=("ConvNeXt-XXL",), source="quoted by X-SAM (AAAI 2026)"
        ),
    ),
    Benchmark(
        "ade20k-panoptic",
        "ADE20K panoptic val, open vocabulary",
        folders=("ADEChallengeData2016", "ade", "ade20k"),
        layout=("ade20k_panoptic_val.json", "ade20k_panoptic_val", "images/validation"),
        settings=Settings(classes="ade20k", size=(2560, 640), clip_fusion=True),
        task=_ade20k_panoptic,
        published=_omg_seg("PQ", large=0.279, huge=0.278, read=("ConvNeXt-L",), noise=0.008, source=_X2SAM),
    ),
    Benchmark(
        "ade20k-semantic",
        "ADE20K semantic val, open vocabulary",
        folders=("ADEChallengeData2016", "ade", "ade20k"),
        layout=("annotations/validation", "images/validation"),
        settings=Settings(classes="ade20k", size=(2560, 640), clip_fusion=True),
        task=_ade20k_semantic,
    ),
    Benchmark(
        "cityscapes-panoptic",
        "Cityscapes panoptic val",
        folders=("cityscapes", "Cityscapes"),
        layout=("gtFine/cityscapes_panoptic_val.json", "gtFine/cityscapes_panoptic_val", "leftImg8bit/val"),
        settings=Settings(classes="cityscapes", size=(2048, 1024)),
        task=_cityscapes_panoptic,
        published=_omg_seg("PQ", large=0.657, huge=0.653, noise=0.003),
    ),
    Benchmark(
        "cityscapes-instances",
        "Cityscapes instances val",
        folders=("cityscapes", "Cityscapes"),
        layout=("gtFine/val", "leftImg8bit/val"),
        settings=Settings(classes="cityscapes", size=(2048, 1024)),
        task=_cityscapes_instances,
    ),
    Benchmark(
        "cityscapes-semantic",
        "Cityscapes semantic val",
        folders=("cityscapes", "Cityscapes"),
        layout=("gtFine/val", "leftImg8bit/val"),
        settings=Settings(classes="cityscapes", size=(2048, 1024)),
        task=_cityscapes_semantic,
    ),
    Benchmark(
        "vipseg-panoptic",
        "VIPSeg val, 720p",
        folders=("VIPSeg", "VIPSeg_720P", "vipseg"),
        layout=("panoptic_gt_VIPSeg_val.json", "panomasksRGB", "images"),
        settings=Settings(classes="vipseg", size=_VIDEO_SIZE, mode="offline"),
        task=_vipseg,
        published=_omg_seg(ORIGINAL_VPQ, large=0.498, huge=0.531, read=("ConvNeXt-L",), source=_LLAVA_TABLE),
    ),
    Benchmark(
        "youtube-vis-2019",
        "YouTube-VIS 2019 valid",
        folders=("youtube_vis_2019", "ytvis_2019", "YouTubeVIS2019"),
        layout=("valid/JPEGImages",),
        settings=Settings(classes="youtube_vis_2019", size=_VIDEO_SIZE, mode="offline"),
        task=_youtube_vis,
        published=_omg_seg("AP", large=0.564, huge=0.603, read=("ConvNeXt-L",), source=_X2SAM),
    ),
    Benchmark(
        "youtube-vis-2021",
        "YouTube-VIS 2021 valid, open vocabulary",
        folders=("youtube_vis_2021", "ytvis_2021", "YouTubeVIS2021"),
        layout=("valid/JPEGImages",),
        settings=Settings(classes="youtube_vis_2021", size=_VIDEO_SIZE, mode="offline"),
        task=_youtube_vis,
        published=_omg_seg("AP", large=0.505, huge=0.552, read=("ConvNeXt-L",), source=_X2SAM),
    ),
    Benchmark(
        "ovis",
        "OVIS valid",
        folders=("ovis", "OVIS"),
        layout=("annotations_valid.json", "valid"),
        settings=Settings(classes="ovis", size=_VIDEO_SIZE, mode="offline"),
        task=_ovis,
    ),
    Benchmark(
        "vspw",
        "VSPW val",
        folders=("VSPW_480p", "VSPW", "vspw"),
        layout=("data", "val.txt"),
        settings=Settings(classes="vspw", size=_VIDEO_SIZE, mode="offline"),
        task=_vspw,
    ),
    Benchmark(
        "davis-2017",
        "DAVIS 2017 val, 480p",
        folders=("DAVIS", "davis", "DAVIS2017"),
        layout=("Annotations/480p", "JPEGImages/480p", "ImageSets/2017/val.txt"),
        settings=Settings(size=_VIDEO_SIZE, mode="offline"),
        task=_davis,
        published=_omg_seg("J&F", large=0.743, huge=0.769),
    ),
    Benchmark(
        "coco-mini-panoptic",
        "68 pictures of COCO panoptic val2017",
        folders=("coco_mini",),
        layout=("panoptic_val.json", "panoptic_val", "images"),
        settings=Settings(classes="coco"),
        task=_mini_panoptic,
    ),
    Benchmark(
        "coco-mini-instances",
        "120 pictures of COCO instances val2017",
        folders=("coco_mini",),
        layout=("instances_val.json", "images"),
        settings=Settings(classes="coco-things"),
        task=_mini_instances,
    ),
    Benchmark(
        "coco-mini-clicks",
        "120 pictures of COCO instances val2017, clicks and boxes",
        folders=("coco_mini",),
        layout=("instances_val.json", "images"),
        settings=Settings(clicks=_MINI_CLICKS, min_share=0.005),
        task=_mini_clicks,
    ),
    Benchmark(
        "camvid",
        "CamVid val, one frame a second",
        folders=("camvid",),
        layout=("images/val", "labels/val"),
        settings=Settings(classes="camvid"),
        task=_camvid,
    ),
    Benchmark(
        "davis2016-mini-clicks",
        "DAVIS 2016 val, every eighth kept frame, clicks and boxes",
        folders=("davis2016_mini",),
        layout=("instances_val.json", "JPEGImages"),
        settings=Settings(clicks=_MINI_CLICKS, every=8),
        task=_mini_davis_clicks,
    ),
)

BENCHMARKS: Mapping[str, Benchmark] = {row.name: row for row in _ROWS}
"""Name → what OMG-Seg models are measured on."""
