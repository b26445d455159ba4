"""Any backbone of transformers can stand in the place of CLIP's ConvNeXt."""

from typing import Any

import pytest
import torch
from transformers import ConvNextConfig, Dinov2Config, PreTrainedConfig, ResNetConfig, SwinConfig, VitDetConfig

from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from tests.closeness import assert_close
from tests.models import random_classes, random_config, random_pixels

STAGES: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
PLAIN: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2} | STAGES
BACKBONES: dict[str, PreTrainedConfig] = {
    "convnext": ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], **STAGES),
    "swin": SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4, **STAGES),
    "resnet": ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", **STAGES
    ),
    "dinov2": Dinov2Config(patch_size=16, image_size=64, mlp_ratio=2, **PLAIN),
    "vitdet": VitDetConfig(patch_size=16, image_size=64, mlp_ratio=2, **PLAIN),
}


@pytest.fixture(params=BACKBONES)
def model(request) -> OmgSegForUniversalSegmentation:
    torch.manual_seed(0)
    config = random_config(backbone_config=BACKBONES[request.param], clip_head=None, freeze_backbone=False)
    model = OmgSegForUniversalSegmentation(config)
    model.set_class_embeddings(random_classes(3), torch.ones(3))
    return model


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_forward(model, size):
    with torch.no_grad():
        encoded = model.eval().encode(random_pixels(1, 3, *size))
        output = model(encoder_outputs=encoded)
    height, width = size
    assert encoded.memory_shapes == tuple((height // stride, width // stride) for stride in (32, 16, 8))
    assert output.masks_queries_logits.shape == (1, 6, height // 4, width // 4)
    assert output.masks_queries_logits.isfinite().all()
    assert output.masks_queries_logits.std() > 0


def test_backward(model):
    masks = torch.zeros(1, 64, 64)
    masks[:, :30, :30] = 1
    loss = model.train()(random_pixels(1, 3, 64, 64), mask_labels=[masks], class_labels=[torch.tensor([1])]).loss
    loss.backward()
    gradients = [parameter.grad for parameter in model.model.backbone.parameters() if parameter.grad is not None]
    assert sum(gradient.abs().sum() for gradient in gradients) > 0
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_saved_and_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = OmgSegForUniversalSegmentation.from_pretrained(tmp_path)
    assert type(loaded.model.backbone) is type(model.model.backbone)
    pixels = random_pixels(1, 3, 64, 64)
    with torch.no_grad():
        assert_close(loaded(pixels).masks_queries_logits, model.eval()(pixels).masks_queries_logits, atol=1e-4)


def test_fusion_needs_a_clip_head(model):
    with pytest.raises(ValueError, match="clip_fusion: expected a model with a CLIP head"):
        model(random_pixels(1, 3, 64, 64), clip_fusion=True)
