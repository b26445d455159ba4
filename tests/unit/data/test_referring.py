"""Sentences and what they mean, from the files of RefCOCO, gRefCOCO and ReasonSeg."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omgvision.data.datasets.referring import ReasonSeg, RefCoco, read_references

BOX = [[2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]]
OTHER = [[8.0, 1.0, 10.0, 1.0, 10.0, 5.0, 8.0, 5.0]]


def write(root: Path, references, *, file: str = "refs(unc).p", protocol: int = 2) -> Path:
    root.mkdir(exist_ok=True)
    Image.new("RGB", (12, 8), (9, 99, 9)).save(root / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 8, "width": 12}],
        "annotations": [{"id": 1, "segmentation": BOX}, {"id": 2, "segmentation": OTHER}],
    }
    (root / "instances.json").write_text(json.dumps(content))
    raw = json.dumps(references).encode() if file.endswith("json") else pickle.dumps(references, protocol=protocol)
    (root / file).write_bytes(raw)
    return root


def reference(**changes):
    sentences = [{"sent": "left box", "raw": "Left box"}, {"sent": "the box é"}]
    return {"ref_id": 3, "ann_id": 1, "image_id": 7, "split": "val", "sentences": sentences, **changes}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_refcoco(tmp_path, protocol):
    root = write(tmp_path / "r", [reference(), reference(split="testA", ref_id=4)], protocol=protocol)
    data = RefCoco(root, images=root)
    assert [data[n].sentence for n in range(len(data))] == ["left box", "the box é"]
    assert [data[n].sample_id for n in range(len(data))] == ["3-0", "3-1"]
    sample = data[0]
    assert (tuple(sample.image.shape), sample.image[1, 0, 0]) == ((3, 8, 12), 99)
    expected = np.zeros((8, 12), dtype=bool)
    expected[1:5, 2:6] = True
    assert np.array_equal(sample.mask.numpy(), expected)
    assert not sample.ignore.any()
    with pytest.raises(ValueError, match=r"split: expected one of val, testA .*got 'test'"):
        RefCoco(root, images=root, split="test")


def test_grefcoco_means_several_things_or_none(tmp_path):
    both = reference(ann_id=[1, 2], sentences=[{"sent": "both"}])
    none = reference(ann_id=[-1], ref_id=5, sentences=[{"sent": "the cow"}])
    root = write(tmp_path / "g", [both, none], file="grefs(unc).json")
    data = RefCoco(root, images=root)
    assert [int(data[n].mask.sum()) for n in range(2)] == [16 + 8, 0]


def test_a_pickle_runs_nothing(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([Harm()]))
    with pytest.raises(ValueError, match=r"plain values .*mkdir"):
        read_references(tmp_path / "refs(unc).p")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "raw", [b"", b"nonsense", pickle.dumps({"a": 1}), pickle.dumps([1, 2])[:-2], b"\x80\x02]q\x00(X\xff"]
)
def test_broken_pickles(tmp_path, raw):
    (tmp_path / "refs(umd).p").write_bytes(raw)
    with pytest.raises(ValueError, match="references:"):
        read_references(tmp_path / "refs(umd).p")


def test_faulty_references(tmp_path):
    with pytest.raises(ValueError, match="expected one of refs"):
        RefCoco(tmp_path, images=tmp_path)
    root = write(tmp_path / "a", [reference(), reference(ref_id=9, image_id=8), reference(ref_id=10, ann_id=77)])
    data = RefCoco(root, images=root)
    assert (len(data), sum(data.findings.counts.values())) == (2, 2)
    with pytest.raises(ValueError, match="lacks"):
        RefCoco(root, images=root, strict=True)
    for broken in ({"split": "val"}, 3, reference(sentences=[{}])):
        root = write(tmp_path / "b", [broken])
        with pytest.raises(ValueError, match="another form"):
            RefCoco(root, images=root)


@pytest.fixture
def reasonseg(tmp_path):
    folder = tmp_path / "val"
    folder.mkdir()
    Image.new("RGB", (20, 10)).save(folder / "a.jpg")
    shapes = [
        {"label": "ignore", "points": [[4, 2], [7, 2], [7, 5], [4, 5]]},
        {"label": "target", "points": [[1, 1], [12, 1], [12, 8], [1, 8]]},
        {"label": "flag", "points": []},
    ]
    (folder / "a.json").write_text(json.dumps({"text": ["what holds water?", "more"], "shapes": shapes}))
    return tmp_path


def test_reasonseg(reasonseg):
    data = ReasonSeg(reasonseg)
    sample = data[0]
    assert (len(data), sample.sentence, sample.sample_id) == (1, "what holds water?", "a")
    # Outlines belong to a shape; the small one lies on the large one although it comes first.
    assert (int(sample.ignore.sum()), int(sample.mask.sum())) == (4 * 4, 12 * 8 - 4 * 4)
    assert sample.ignore[2:6, 4:8].all()


def test_faulty_reasonseg(reasonseg):
    with pytest.raises(ValueError, match="expected pictures"):
        ReasonSeg(reasonseg, split="test")
    path = reasonseg / "val" / "a.json"
    two = {"label": "target", "points": [[1, 1], [2, 2]]}
    for content in ("{", "[]", json.dumps({"text": [], "shapes": []}), json.dumps({"text": "x", "shapes": [two]})):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"a\.json"):
            ReasonSeg(reasonseg)[0]
