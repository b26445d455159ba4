"""The object users hold, on a tiny model with random weights: what is computed how often, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

import omgvision
from omgvision import Predictor, Result, ResultStream, UserError
from omgvision.predictor import TASKS


@pytest.fixture(scope="module")
def predictor(tiny_model_dir) -> Predictor:
    return omgvision.load(tiny_model_dir, device="cpu")


@pytest.fixture
def encodings(predictor, monkeypatch) -> list[torch.Size]:
    """Grows by one shape whenever a picture is encoded."""
    seen: list[torch.Size] = []
    encode = predictor.model.encode

    def counted(pixel_values, pixel_mask=None):
        seen.append(pixel_values.shape)
        return encode(pixel_values, pixel_mask)

    monkeypatch.setattr(predictor.model, "encode", counted)
    return seen


@pytest.fixture
def forwarded(predictor, monkeypatch) -> list[dict]:
    """Grows by the keyword arguments of each call of the model."""
    seen: list[dict] = []
    forward = predictor.model.forward

    def recorded(**kwargs):
        seen.append(kwargs)
        return forward(**kwargs)

    monkeypatch.setattr(predictor.model, "forward", recorded)
    return seen


# ------------------------------------------------------------------------------------------------------------- segment


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_one_kind_of_result(predictor, photo, task):
    result = predictor.segment(photo, task=task, threshold=None if task == "semantic" else 0.0)
    assert isinstance(result, Result)
    assert result.task == task
    assert (result.width, result.height) == photo.size
    assert result.model_name == "tiny"
    assert all(segment.mask.shape == (60, 90) for segment in result)
    if task == "semantic":
        assert sum(segment.area for segment in result) == 90 * 60
    if task == "everything":
        assert set(result.labels) <= {"object"}
        assert result.categories == ()
    else:
        assert set(result.labels) <= {"person", "car", "sky", "grass"}


def test_instances_are_things(predictor, photo):
    result = predictor.segment(photo, task="instance", threshold=0.0)
    assert len(result) > 0
    assert all(segment.is_thing for segment in result)
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)


def test_threshold(predictor, photo):
    scores = predictor.segment(photo, task="instance", threshold=0.0).scores
    middle = float(np.median(scores))
    assert len(predictor.segment(photo, task="instance", threshold=middle)) == (scores > middle).sum()


def test_same_result_whatever_the_picture_comes_as(predictor, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    expected = predictor.segment(photo, task="semantic").label_map
    for source in (np.asarray(photo), torch.from_numpy(np.array(photo)).permute(2, 0, 1), tmp_path / "photo.png"):
        assert np.array_equal(predictor.segment(source, task="semantic").label_map, expected)


def test_many_pictures_are_a_lazy_stream(predictor, photo, tmp_path, encodings):
    for name in ("b", "a", "c"):
        photo.save(tmp_path / f"{name}.png")
    stream = predictor.segment(str(tmp_path))
    assert isinstance(stream, ResultStream)
    assert len(stream) == 3
    assert stream.names == ["a", "b", "c"]
    assert len(encodings) == 0
    assert next(iter(stream)).name == "a"
    assert len(encodings) == 1
    written = [path.name for result in stream for path in result.save(tmp_path / "out", artifacts=["overlay"])]
    assert written == ["a.overlay.png", "b.overlay.png", "c.overlay.png"]


def test_a_list_of_one_is_still_a_stream(predictor, photo):
    assert len(predictor.segment([photo])) == 1


def test_words_of_choice_leave_the_model_alone(predictor, photo):
    before = predictor.model.class_embeddings.clone()
    result = predictor.segment(photo, task="semantic", classes=["dog", "sofa, couch", "sea"])
    assert [category.name for category in result.categories] == ["dog", "sofa, couch", "sea"]
    assert [category.is_thing for category in result.categories] == [True, True, False]
    assert torch.equal(predictor.model.class_embeddings, before)
    assert predictor.classes == ["person", "car", "sky", "grass"]
    assert set(predictor.segment(photo, task="semantic").labels) <= set(predictor.classes)


def test_order_of_words_does_not_matter(predictor, photo):
    names = ["dog", "sea", "tree"]
    one = predictor.segment(photo, task="semantic", classes=names)
    other = predictor.segment(photo, task="semantic", classes=names[::-1])
    assert np.array_equal(one.semantic_map(), 2 - other.semantic_map())


def test_words_are_encoded_once(predictor, photo, monkeypatch):
    predictor.vocabulary(["zebra crossing", "lamp"])
    calls = []
    monkeypatch.setattr(predictor.model, "encode_text", lambda *a, **k: calls.append(a))
    predictor.vocabulary(["lamp", "zebra crossing"])
    assert not calls


def test_which_words_are_things(predictor):
    def things(names, **kwargs):
        return [category.is_thing for category in predictor.vocabulary(names, **kwargs).categories]

    assert things(["person", "sky", "tree", "unicorn", "Road", "wall-brick"]) == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    assert things(["person", "sky"], things=["sky"]) == [False, True]
    assert things(["person", "sky"], things=[]) == [False, False]


def test_bundled_lists(predictor):
    coco = predictor.vocabulary("coco")
    assert len(coco.categories) == 133
    assert sum(category.is_thing for category in coco.categories) == 80
    assert len(predictor.vocabulary("camvid").categories) == 11


def test_seen_classes_share_a_word_with_the_stored_vocabulary(predictor):
    assert predictor.vocabulary(["car, automobile", "dog", "sky"]).seen_mask.tolist() == [True, False, True]


def test_clip_fusion(predictor, photo, forwarded):
    predictor.segment(photo, classes=["dog", "sky"], clip_fusion=True)
    assert forwarded[-1]["clip_fusion"] is True
    assert forwarded[-1]["seen_mask"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"task": "panoptical"}, "panoptic, instance, semantic, everything"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"task": "semantic", "threshold": 0.5}, "no threshold"),
        ({"classes": []}, "empty list"),
        ({"classes": ["dog", " "]}, "position 1"),
        ({"classes": ["dog", "Dog"]}, "different names"),
        ({"classes": ["dog", 3]}, "expected a name"),
        ({"classes": "dog"}, "list of names"),
        ({"classes": ["dog"], "things": ["cat"]}, "'cat'"),
        ({"things": ["person"]}, "belongs to classes"),
        ({"task": "everything", "classes": ["dog"]}, "knows no classes"),
        ({"task": "everything", "clip_fusion": True}, "leave it off"),
    ],
)
def test_what_cannot_be_segmented(predictor, photo, arguments, part):
    with pytest.raises(UserError, match=part) as error:
        predictor.segment(photo, **arguments)
    assert "\n" not in str(error.value)


def test_without_a_vocabulary_the_error_says_what_to_call(tiny_model_dir, photo):
    predictor = omgvision.load(tiny_model_dir, device="cpu")
    predictor.model.set_class_embeddings(torch.zeros(0, 1, 16), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(UserError, match=r"no vocabulary.*classes="):
        predictor.segment(photo)
    assert len(predictor.segment(photo, task="everything", threshold=0.0)) > 0
    assert len(predictor.click(photo, [(30, 30)])) == 1
    predictor.segment(photo, classes=["dog"])


def test_without_a_text_tower_words_are_refused(tiny_model_dir, photo):
    predictor = omgvision.load(tiny_model_dir, device="cpu")
    predictor.model.text_model = None
    with pytest.raises(UserError, match="no text tower"):
        predictor.segment(photo, classes=["dog"])


def test_a_vocabulary_of_thousands(predictor, photo, monkeypatch):
    names = [f"thing number {index}" for index in range(5000)]
    embeddings = torch.nn.functional.normalize(torch.randn(5000, 1, 16), dim=-1)
    monkeypatch.setattr(type(predictor.processor), "encode_vocabulary", lambda self, names, *, model: embeddings)
    result = predictor.segment(photo, task="semantic", classes=names)
    assert result.semantic_map().dtype == np.uint16


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_extreme_pictures(predictor, size, task):
    result = predictor.segment(Image.new("RGB", size, (90, 10, 200)), task=task)
    assert (result.width, result.height) == size


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_and_repeatable(tiny_model_dir, photo, dtype):
    exact = omgvision.load(tiny_model_dir, device="cpu").segment(photo, task="semantic").semantic_map()
    half = omgvision.load(tiny_model_dir, device="cpu", dtype=dtype)
    maps = []
    for _ in range(3):
        freed = [torch.full((size,), torch.nan) for size in (10**3, 10**4, 10**5, 10**6)]
        del freed  # whoever reads memory that is not its own now meets NaN
        maps.append(half.segment(photo, task="semantic").semantic_map())
    assert (exact == maps[0]).mean() > 0.9
    assert all(np.array_equal(maps[0], other) for other in maps[1:])


# ---------------------------------------------------------------------------------------------------------------- click


def test_a_session_encodes_once(predictor, photo, encodings):
    session = predictor.open(photo)
    assert len(encodings) == 1
    session.click([(30, 30)])
    session.refine([(60, 10)], labels=[0])
    session.click(boxes=[(5, 5, 40, 50)])
    assert len(encodings) == 1


def test_one_shot_equals_session(predictor, photo):
    session = predictor.open(photo)
    session.click([(80, 50)])
    one, other = session.click([(30, 30)]), predictor.click(photo, [(30, 30)])
    assert np.array_equal(one.masks, other.masks)
    assert one.task == "click"
    assert one.labels == ["object"]


def test_points_are_scaled_to_the_network_input(predictor, photo, forwarded):
    predictor.click(photo, [(30, 15), (89, 59)], labels=[1, 0])
    points, labels = forwarded[-1]["input_points"], forwarded[-1]["input_point_labels"]
    assert points.shape == (1, 1, 2, 2)
    assert points[0, 0, 0].tolist() == pytest.approx([30 * 128 / 90, 15 * 85 / 60], rel=1e-3)
    assert labels.tolist() == [[[1, 0]]]


def test_prompts_match_the_processor(predictor, photo, forwarded):
    """The session scales as `OmgSegProcessor` does."""
    region = np.zeros((60, 90), dtype=bool)
    region[10:40, 20:70] = True
    predictor.click(photo, [[(30, 15)], [(3, 4), (50.5, 20)]], boxes=[(5, 6, 70, 40)], masks=[region])
    inputs = predictor.processor(
        photo, input_points=[[[(30, 15)], [(3, 4), (50.5, 20)]]], input_boxes=[[(5, 6, 70, 40)]], input_masks=[[region]]
    )
    for name in ("input_points", "input_point_labels", "input_boxes", "input_masks"):
        assert torch.allclose(forwarded[-1][name].float(), inputs[name].float(), atol=1e-4), name


def test_several_objects_and_kinds_at_once(predictor, photo):
    region = np.zeros((60, 90), dtype=np.uint8)
    region[15:45, 20:50] = 255
    together = predictor.click(
        photo, [[(30, 30)], [(70, 20), (80, 50)]], labels=[[1], [1, 0]], boxes=[(20, 15, 50, 45)], masks=[region]
    )
    assert [segment.id for segment in together] == [1, 2, 3, 4]
    alone = [
        predictor.click(photo, [(30, 30)]),
        predictor.click(photo, [(70, 20), (80, 50)], labels=[1, 0]),
        predictor.click(photo, boxes=[(20, 15, 50, 45)]),
        predictor.click(photo, masks=[Image.fromarray(region)]),
    ]
    for segment, single in zip(together, alone, strict=True):
        assert (segment.mask == single.segments[0].mask).mean() > 0.999
    assert len(together.prompt_points) == 3
    assert together.prompt_boxes == ((20, 15, 50, 45),)


def test_refinement_passes_all_points_and_the_present_mask(predictor, photo, forwarded):
    session = predictor.open(photo)
    session.click([[(30, 30)], [(70, 20)]])
    first = forwarded[-1]
    assert "previous_mask_logits" not in first
    before = session.result()
    after = session.refine([(80, 50)], labels=[0], segment_id=2)
    call = forwarded[-1]
    assert call["input_point_labels"].tolist() == [[[1, 0]]]
    assert call["previous_mask_logits"].shape[:2] == (1, 1)
    assert torch.isfinite(call["previous_mask_logits"]).all()
    assert np.array_equal(after.segments[0].mask, before.segments[0].mask)
    assert len(after) == 2


def test_undo_and_reset(predictor, photo, forwarded):
    session = predictor.open(photo)
    first = session.click([(30, 30)])
    session.refine([(60, 50)])
    calls = len(forwarded)
    assert np.array_equal(session.undo().masks, first.masks)
    assert len(forwarded) == calls
    assert len(session.undo()) == 0
    with pytest.raises(UserError, match="nothing to undo"):
        session.undo()
    session.click([(30, 30)])
    session.reset()
    assert len(session.result()) == 0
    with pytest.raises(UserError, match="call click first"):
        session.refine([(1, 1)])


def test_a_region_of_one_pixel_is_not_lost(predictor, forwarded):
    region = np.zeros((900, 1350), dtype=bool)
    region[100, 1000] = True
    predictor.click(Image.new("RGB", (1350, 900)), masks=[region])
    assert forwarded[-1]["input_masks"].sum() == 1


def test_boxes_are_cut_to_the_picture(predictor, photo, forwarded):
    predictor.click(photo, boxes=[(-10, -10, 45, 30)])
    assert forwarded[-1]["input_boxes"][0, 0].tolist() == pytest.approx([0, 0, 64, 42.5], rel=1e-3)


@pytest.mark.parametrize(
    ("prompts", "part"),
    [
        ({}, "at least one point"),
        ({"points": []}, "at least one point"),
        ({"points": [(500, 20)]}, r"outside of the image.*x <= 90"),
        ({"points": [(-1, 20)]}, "outside of the image"),
        ({"points": [(float("nan"), 20)]}, "expected"),
        ({"points": [(1, 2, 3)]}, "expected"),
        ({"points": ["ab"]}, "expected"),
        ({"points": [3, 4, 5]}, "expected"),
        ({"points": [(3, 4)], "labels": [2]}, "1 .on the object. or 0"),
        ({"points": [(3, 4)], "labels": [1, 1]}, "expected one for each"),
        ({"points": [[(3, 4)], [(5, 6)]], "labels": [[1]]}, "one list for each"),
        ({"labels": [1]}, "without points"),
        ({"boxes": [(40, 10, 20, 30)]}, "inverted"),
        ({"boxes": [(10, 30, 20, 30)]}, "inverted or empty"),
        ({"boxes": [(100, 10, 120, 30)]}, "outside of the image"),
        ({"boxes": [(1, 2, 3)]}, "expected"),
        ({"masks": [np.ones((5, 5))]}, "the image"),
        ({"masks": [np.zeros((60, 90))]}, "empty"),
    ],
)
def test_what_cannot_be_clicked(predictor, photo, prompts, part):
    with pytest.raises(UserError, match=part) as error:
        predictor.click(photo, **prompts)
    assert "\n" not in str(error.value)


def test_refining_what_is_not_there(predictor, photo):
    session = predictor.open(photo)
    session.click([(30, 30)])
    with pytest.raises(UserError, match="from 1 to 1"):
        session.refine([(3, 3)], segment_id=2)
    with pytest.raises(UserError, match="one object"):
        session.refine([[(3, 3)], [(4, 4)]])


def test_a_session_is_of_one_picture(predictor, photo, tmp_path):
    photo.save(tmp_path / "a.png")
    with pytest.raises(UserError, match="one image"):
        predictor.open(tmp_path)


# ------------------------------------------------------------------------------------------------------------- pipeline


def test_image_segmentation_pipeline(tiny_model_dir, photo, caplog):
    segmenter = pipeline("image-segmentation", model=str(tiny_model_dir), device="cpu")
    assert "not supported" not in caplog.text
    semantic = segmenter(photo, subtask="semantic")
    assert {entry["label"] for entry in semantic} <= {"person", "car", "sky", "grass"}
    assert semantic[0]["mask"].size == photo.size
    instance = segmenter(photo, subtask="instance", threshold=0.0)
    assert {entry["label"] for entry in instance} <= {"person", "car"}
    segmenter(photo, subtask="panoptic", threshold=0.0)
