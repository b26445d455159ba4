"""Names that others rely on. A change here is a change of contract: say so in the commit."""

import inspect
from importlib.resources import files

import omgvision
from omgvision import (
    Answer,
    Conversation,
    ImageSession,
    OmgSegForUniversalSegmentation,
    OmgSegImageProcessor,
    OmgSegModel,
    Predictor,
    Result,
    VideoSession,
)


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in {"self", "kwargs"}]


def test_public_names():
    assert sorted(omgvision.__all__) == [
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
    for name in omgvision.__all__:
        assert inspect.getdoc(vars(omgvision)[name]), f"{name} has no docstring"


def test_load_and_predictor():
    assert parameters(omgvision.load) == ["name_or_path", "device", "dtype", "backbone", "adapter", "quantization"]
    assert parameters(Predictor.segment) == ["source", "task", "classes", "things", "clip_fusion", "threshold"]
    assert parameters(Predictor.click) == ["image", "points", "labels", "boxes", "masks"]
    assert parameters(Predictor.open) == ["image"]
    assert parameters(ImageSession.click) == ["points", "labels", "boxes", "masks"]
    assert parameters(ImageSession.refine) == ["points", "labels", "segment_id"]
    assert {"undo", "reset", "result"} <= set(vars(ImageSession))


def test_conversations():
    pointed = ["points", "labels", "boxes", "masks"]
    sampling = ["max_new_tokens", "temperature", "top_p", "top_k"]
    heard = ["on_text", "on_phrase", "on_mask"]
    asked = ["question", "task", "options", *pointed]
    assert parameters(Predictor.chat) == ["image", *asked, "system", *sampling, *heard]
    assert parameters(Predictor.open_chat) == ["image", "system"]
    assert parameters(Conversation.ask) == [*asked, "prompts", *sampling, "drop_oldest", "shorten", *heard]
    assert {"recall", "reset", "save"} <= set(vars(Conversation))
    assert {"masks", "boxes", "scores", "colors", "colored_text", "overlay", "to_dict", "save"} <= set(vars(Answer))


def test_videos():
    asked = ["task", "classes", "things", "clip_fusion", "threshold"]
    pointed = ["points", "labels", "boxes", "masks", "prompts"]
    assert parameters(Predictor.track) == ["source", *asked, *pointed, "mode", "clip_frames"]
    assert parameters(Predictor.open_video) == [*asked, "name"]
    assert parameters(VideoSession.feed) == ["frame", "objects"]
    assert parameters(VideoSession.feed_clip) == ["frames"]
    assert parameters(VideoSession.prompt) == ["objects"]


def test_result():
    expected = {
        "masks",
        "labels",
        "label_ids",
        "scores",
        "boxes",
        "label_map",
        "to_coco",
        "panoptic_png",
        "segments_info",
    }
    expected |= {"semantic_png", "semantic_map", "overlay", "to_supervision", "to_dict", "save"}
    assert expected <= set(vars(Result))
    assert parameters(Result.save) == ["folder", "stem", "artifacts"]


def test_model_forward_and_encode():
    wanted = ["pixel_values", "pixel_mask", "input_points", "input_point_labels", "input_boxes", "input_masks"]
    wanted += ["prompt_mask", "previous_mask_logits", "mask_labels", "class_labels", "class_embeddings", "clip_fusion"]
    wanted += ["encoder_outputs", "output_auxiliary"]
    found = parameters(inspect.unwrap(OmgSegForUniversalSegmentation.forward))
    assert [name for name in wanted if name not in found] == []
    assert {"encode", "decode"} <= set(vars(OmgSegModel))
    assert {"set_class_embeddings", "set_vocabulary", "encode_text"} <= set(vars(OmgSegForUniversalSegmentation))


def test_post_processing_names_of_the_ecosystem():
    for name in ("semantic", "instance", "panoptic"):
        assert f"post_process_{name}_segmentation" in vars(OmgSegImageProcessor)


def test_everything_after_the_first_argument_is_by_keyword():
    for function in (omgvision.load, Predictor.segment, Predictor.track, VideoSession.feed, Result.save):
        positional = [
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
        ]
        assert len(positional) <= 1, function


def test_package_is_typed_and_brings_its_data():
    assert (files("omgvision") / "py.typed").is_file()
    assert (files("omgvision") / "models" / "omg_seg" / "data" / "bpe_simple_vocab_16e6.txt.gz").is_file()
