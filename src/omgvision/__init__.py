"""omgvision: one model for every segmentation task.

The import registers the models with transformers' Auto classes and does nothing else.
"""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageSegmentation,
    AutoModelForImageTextToText,
    AutoModelForUniversalSegmentation,
    AutoProcessor,
)
from transformers.models.auto import modeling_auto

from .answer import Answer, GroundedPhrase
from .chat import Conversation
from .errors import UserError
from .hub import load
from .inputs import load_image, load_images
from .models.efficientnet_lite.configuration_efficientnet_lite import EfficientNetLiteConfig
from .models.efficientnet_lite.modeling_efficientnet_lite import EfficientNetLiteBackbone
from .models.omg_llava.configuration_omg_llava import OmgLlavaConfig
from .models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration, OmgLlavaModel
from .models.omg_llava.processing_omg_llava import OmgLlavaProcessor
from .models.omg_seg.backbone_omg_seg import ClipConvNextBackbone
from .models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from .models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from .models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation, OmgSegModel
from .models.omg_seg.processing_omg_seg import OmgSegProcessor
from .predictor import Predictor, ResultStream
from .prompts import ObjectPrompt
from .results import Result, Segment
from .session import ImageSession
from .video_session import VideoSession

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "ClipConvNextBackbone",
    "ClipConvNextConfig",
    "Conversation",
    "EfficientNetLiteBackbone",
    "EfficientNetLiteConfig",
    "GroundedPhrase",
    "ImageSession",
    "ObjectPrompt",
    "OmgLlavaConfig",
    "OmgLlavaForConditionalGeneration",
    "OmgLlavaModel",
    "OmgLlavaProcessor",
    "OmgSegConfig",
    "OmgSegForUniversalSegmentation",
    "OmgSegImageProcessor",
    "OmgSegModel",
    "OmgSegProcessor",
    "Predictor",
    "Result",
    "ResultStream",
    "Segment",
    "UserError",
    "VideoSession",
    "load",
    "load_image",
    "load_images",
]


def _register() -> None:
    AutoConfig.register(ClipConvNextConfig.model_type, ClipConvNextConfig, exist_ok=True)
    AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
    AutoConfig.register(OmgSegConfig.model_type, OmgSegConfig, exist_ok=True)
    AutoBackbone.register(ClipConvNextConfig, ClipConvNextBackbone, exist_ok=True)
    AutoBackbone.register(EfficientNetLiteConfig, EfficientNetLiteBackbone, exist_ok=True)
    AutoModel.register(OmgSegConfig, OmgSegModel, exist_ok=True)
    AutoModelForUniversalSegmentation.register(OmgSegConfig, OmgSegForUniversalSegmentation, exist_ok=True)
    # The image-segmentation pipeline looks for this class only.
    AutoModelForImageSegmentation.register(OmgSegConfig, OmgSegForUniversalSegmentation, exist_ok=True)
    # One class under both names: transformers asks for "torchvision" first and warns when it is missing.
    AutoImageProcessor.register(
        OmgSegConfig,
        image_processor_classes={"pil": OmgSegImageProcessor, "torchvision": OmgSegImageProcessor},
        exist_ok=True,
    )
    AutoProcessor.register(OmgSegConfig, OmgSegProcessor, exist_ok=True)
    AutoConfig.register(OmgLlavaConfig.model_type, OmgLlavaConfig, exist_ok=True)
    AutoModel.register(OmgLlavaConfig, OmgLlavaModel, exist_ok=True)
    AutoModelForImageTextToText.register(OmgLlavaConfig, OmgLlavaForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(OmgLlavaConfig, OmgLlavaProcessor, exist_ok=True)
    # The pipelines' lists of supported models are made from these names; without ours they log an error and work all
    # the same.
    supported: dict[str, str] = modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES  # type: ignore[assignment]
    supported[OmgSegConfig.model_type] = OmgSegForUniversalSegmentation.__name__
    supported = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES  # type: ignore[assignment]
    supported[OmgLlavaConfig.model_type] = OmgLlavaForConditionalGeneration.__name__


_register()
