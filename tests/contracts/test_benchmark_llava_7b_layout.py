"""The benchmark of the published 7B layout runs, on a language model of its names and proportions."""

import json

import pytest

from benchmarks import llava_7b_layout


@pytest.mark.slow
def test_files_of_the_published_shapes_are_converted_loaded_and_asked(tmp_path):
    assert llava_7b_layout.main(["--quick", "--output", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["missing"] == report["unexpected"] == []
    assert report["masks"] == [[480, 640]]
    assert report["parameters"] > 200e6  # the whole segmenter


def test_at_its_full_width_it_has_the_published_shapes():
    recorded = json.loads(llava_7b_layout.KEYS.read_text(encoding="utf-8"))
    for name in (llava_7b_layout.FINETUNE, *llava_7b_layout.ENCODER, llava_7b_layout.LLM):
        for key, (shape, _) in recorded[name].items():
            assert llava_7b_layout.Setup().shape(key, shape) == shape
