# ruff: noqa: E402  (the guard below comes before every import that may pull in transformers)
"""Fixtures shared by all tests."""

import sys

# A CUDA build of torchvision beside a CPU build of torch breaks transformers' image processors on import. The project
# does not use torchvision, so the tests pretend that it is absent; this must happen before transformers is imported.
sys.modules["torchvision"] = None  # type: ignore[assignment]

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The command line points our logger to stderr for its process; here many commands share one."""
    logger = logging.getLogger("omgvision")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `from_pretrained` folder of a very small model with random weights: text tower, prompts, four classes."""
    import torch

    from omgvision import (
        ClipConvNextConfig,
        OmgSegConfig,
        OmgSegForUniversalSegmentation,
        OmgSegImageProcessor,
        OmgSegProcessor,
    )
    from omgvision.models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer
    from tests.models import small_text_config

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = OmgSegConfig(
            backbone_config=ClipConvNextConfig(hidden_sizes=(8, 16, 32, 32), depths=(1, 1, 1, 1)),
            text_config=small_text_config(),
            clip_head="linear",
            embedding_dim=16,
            hidden_size=32,
            num_attention_heads=4,
            num_queries=12,
            encoder_layers=1,
            encoder_ffn_dim=32,
            group_norm_groups=8,
            decoder_layers=2,
            decoder_ffn_dim=32,
            point_refinement=True,
            box_prompt_index=1,
        )
        model = OmgSegForUniversalSegmentation(config).eval()
        processor = OmgSegProcessor(
            OmgSegImageProcessor(size={"longest_edge": 128, "shortest_edge": 96}), build_clip_tokenizer()
        )
        model.set_vocabulary(["person", "car", "sky", "grass"], processor=processor, things=[True, True, False, False])
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A picture of 90x60 pixels with edges, colours and texture, always the same."""
    rows, columns = np.mgrid[:60, :90].astype(np.float64)
    pixels = np.stack([columns * 2.5, rows * 4, 120 + 60 * np.sin(columns / 5)], axis=-1)
    pixels[15:45, 20:50] = (200, 40, 60)
    pixels += np.random.default_rng(0).normal(0, 8, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
