"""The full-size model (ConvNeXt-Large, 300 queries, 133 classes) against the original, with weights made by a rule.

No real weights are stored: both sides made theirs from the name of each parameter.
"""

import math
import zlib
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omgvision.conversion import convert_omg_seg
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.outputs_omg_seg import OmgSegOutput
from tests.golden import load, read_json

pytestmark = pytest.mark.slow

RECORDED = load("full_io_convl")
LEARNED_ROWS = ("query_embed", "query_feat", "level_embed", "level_encoding", "mask_tokens", "pb_embedding")
THINGS, CLASSES = 80, 133


def made_by_rule(key: str, shape: list[int]) -> Tensor:
    """The weights of the parameter that the original calls `key` (facts/omg_seg.md, section 1)."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if key.endswith(".gamma"):
        return noise.mul_(0.05).add_(0.1)
    if key.endswith(".weight") and len(shape) == 1:
        return noise.mul_(0.1).add_(1)
    if key.endswith("sampling_offsets.bias"):
        return noise.mul_(2)
    if key.endswith("bias"):
        return noise.mul_(0.1)
    if any(name in key for name in LEARNED_ROWS):
        return noise
    return noise.div_(math.sqrt(math.prod(shape[1:])))


@pytest.fixture(scope="module")
def model() -> OmgSegForUniversalSegmentation:
    state = {key: made_by_rule(key, entry["shape"]) for key, entry in read_json("keys_convl")["keys"].items()}
    config, converted = convert_omg_seg(state)
    config.box_prompt_index = 1
    with torch.device("meta"):
        model = OmgSegForUniversalSegmentation(config)
    model.load_state_dict(converted, assign=True)
    classifier = torch.randn(CLASSES, 3, 768, generator=torch.Generator().manual_seed(zlib.crc32(b"classifier")))
    model.set_class_embeddings(F.normalize(classifier, dim=-1), torch.arange(CLASSES) < THINGS)
    return model.eval()


@dataclass
class Run:
    output: OmgSegOutput
    prompted: OmgSegOutput
    backbone: tuple[Tensor, ...]


@pytest.fixture(scope="module")
def run(model) -> Run:
    pixels = RECORDED["input"]
    unpadded = torch.zeros(1, *pixels.shape[-2:])
    unpadded[:, :90, :120] = 1
    # Recorded as a box (embedding row 1) and a point (row 0): ours come in the order points, boxes.
    box, point = RECORDED["prompt.xyxy"]
    with torch.no_grad():
        backbone = model.model.backbone(pixels).feature_maps
        encoded = model.encode(pixels, unpadded)
        output = model(encoder_outputs=encoded, output_auxiliary=True)
        center = ((point[:2] + point[2:]) / 2).view(1, 1, 1, 2)
        prompted = model(encoder_outputs=encoded, input_points=center, input_boxes=box.view(1, 1, 4))
    return Run(output, prompted, backbone)


def assert_close(found: Tensor, expected: Tensor, *, atol: float, share: float = 0.0) -> None:
    """Equal within `atol`, apart from at most `share` of the values.

    The record's smallest attention logit lies 2e-6 standard deviations from its threshold, so that an equal
    computation in another order may flip single attention entries, which changes the queries concerned.
    """
    assert found.shape == expected.shape
    differs = (found - expected).abs() > atol
    assert differs.float().mean() <= share, f"{int(differs.sum())} of {differs.numel()} differ"


def test_recorded_prompts():
    assert RECORDED["prompt.bp"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("level", "name", "channels"),
    [(0, "feat0.ch0_16", 16), (1, "feat1.ch0_32", 32), (2, "feat2.ch0_128", 128), (3, "feat3", 1536)],
)
def test_backbone(run, level, name, channels):
    assert_close(run.backbone[level][:, :channels], RECORDED[f"backbone.{name}"], atol=1e-4)


def test_pixel_decoder(run):
    encoded = run.output.encoder_outputs
    assert_close(encoded.mask_features[:, :32, 0], RECORDED["pixel_decoder.mask_features.ch0_32"], atol=1e-4)
    for level, name, channels in [(0, "memory0", 256), (1, "memory1", 256), (2, "memory2.ch0_64", 64)]:
        expected = RECORDED[f"pixel_decoder.{name}"]
        memory = encoded.memories[level].transpose(1, 2).unflatten(2, expected.shape[-2:])
        assert_close(memory[:, :channels], expected, atol=1e-4)


def test_decoder(run):
    output = run.output
    for layer, name in ((output.auxiliary_logits[0], "0"), (output, "9")):
        classes = torch.cat((layer["class_queries_logits"], layer["iou_logits"][..., None]), dim=-1)
        assert_close(classes, RECORDED[f"decoder.cls.{name}"], atol=1e-3, share=0.01)
    assert_close(output.masks_queries_logits[:, :40], RECORDED["decoder.mask.9.q0_40"], atol=1e-3, share=0.01)
    assert_close(output.query_features, RECORDED["decoder.query_feat"], atol=1e-4, share=0.01)


def test_prompts(run):
    output, order = run.prompted, [1, 0]
    classes = torch.cat((output.class_queries_logits, output.iou_logits[..., None]), dim=-1)[:, order]
    assert_close(classes, RECORDED["prompt.cls.9"], atol=1e-3, share=0.01)
    assert_close(output.masks_queries_logits[:, order], RECORDED["prompt.mask.9"], atol=1e-3, share=0.01)
    assert_close(output.query_features[:, order], RECORDED["prompt.query_feat"], atol=1e-4, share=0.01)


def test_clip_head(model):
    with torch.no_grad():
        assert_close(model.clip_head(RECORDED["clip_head.in"]), RECORDED["clip_head.out"], atol=1e-4)


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_parameter_counts(model):
    """The original's numbers; its `transformer_decoder` are the layers and their last norm."""
    decoder = model.model.mask_decoder
    assert count(model) == 220_781_185
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 21_010_369
    assert count(model.model.backbone, model.clip_head) == 199_770_816
    assert count(model.model.pixel_decoder) == 5_790_144
    assert count(decoder.layers, decoder.post_norm) == 14_209_280
