"""`omg convert` on the original's OMG-LLaVA files: a folder that loads, whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from omg_cli.main import run
from omgvision import OmgLlavaForConditionalGeneration, OmgLlavaProcessor
from omgvision.conversion.checkpoint import BARE_TENSOR, read_shapes
from omgvision.conversion.omg_llava_folder import convert_llava
from tests.golden_llava import golden_llava, load, path, with_image_token


@pytest.fixture
def sources(tmp_path) -> list[Path]:
    """The recorded tiny files as the original's are: a trained file, a segmenter, bare embeddings, a language model."""
    for name in ("omg_llava_finetune", "omg_seg_encoder"):
        shutil.copy(path(f"tiny/{name}.safetensors"), tmp_path / f"{name}.safetensors")
    torch.save(load("tiny/ov_class_embed")["class_embed"], tmp_path / "classes.pth")
    llm = tmp_path / "llm"
    llm.mkdir()
    for name in ("tiny/llm/model.safetensors", "tiny/llm/config.json"):
        shutil.copy(path(name), llm / Path(name).name)
    fields = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps(fields | {"architectures": ["InternLM2ForCausalLM"]}))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(path(f"tiny/tokenizer/{name}"), llm / name)
    return [
        tmp_path / name
        for name in ("omg_llava_finetune.safetensors", "omg_seg_encoder.safetensors", "classes.pth", "llm")
    ]


def logits(model: OmgLlavaForConditionalGeneration) -> torch.Tensor:
    recorded = load("generate_refseg")
    pixels = load("encoder")["pixel_values_a"][None]
    with torch.no_grad():
        output = model.eval()(input_ids=with_image_token(recorded["input_ids"]), pixel_values=pixels)
    assert output.logits is not None
    return output.logits


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "adapter"])
def test_folder_loads_and_is_the_original(sources, tmp_path, merge):
    out = tmp_path / "out"
    report = convert_llava(sources, out, config={"image_size": 256}, merge_lora=merge)
    assert (report.missing, report.unexpected) == ([], [])
    model: Any = AutoModelForImageTextToText.from_pretrained(out)
    if not merge:
        assert not torch.allclose(logits(model), logits(golden_llava()), atol=1e-2)
        model.load_adapter(str(out / "adapter"))
    torch.testing.assert_close(logits(model), logits(golden_llava()), atol=1e-4, rtol=0)
    assert (out / "adapter").is_dir() != merge
    ours = AutoProcessor.from_pretrained(out)
    assert type(ours) is OmgLlavaProcessor
    assert model.generation_config.eos_token_id == [2, 400]
    assert ours.image_token_id == model.config.image_token_id
    assert json.loads((out / "conversion_report.json").read_text())["unexpected"] == []


def test_in_the_shell(sources, tmp_path, capsys):
    config = tmp_path / "fields.json"
    config.write_text('{"image_size": 256}')
    out = tmp_path / "out"
    assert run(["convert", *map(str, sources), str(out), "--config", str(config), "--merge-lora"]) == 0
    assert "0 missing, 0 unexpected" in capsys.readouterr().out
    assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize("listed", [False, True], ids=["files", "key lists"])
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "adapter"])
def test_a_dry_run_reports_the_same_and_writes_nothing(sources, tmp_path, capsys, merge, listed):
    options = ["--merge-lora"] if merge else []
    given = sources
    if listed:
        files = [*sources[:3], sources[3] / "model.safetensors"]
        given = [tmp_path / f"{index}.json" for index in range(4)]
        for source, target in zip(files, given, strict=True):
            shapes = {key: list(tensor.shape) for key, tensor in read_shapes(source)[0].items()}
            target.write_text(json.dumps(shapes.get(BARE_TENSOR, shapes)))
        without_weights = shutil.copytree(sources[3], tmp_path / "tokenizer")
        (without_weights / "model.safetensors").unlink()
        given.append(without_weights)
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    assert run(["convert", *map(str, given), str(out), *options, "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(tmp_path.rglob("*")) == before
    report = convert_llava(sources, out, merge_lora=merge)
    assert said[0].startswith(f"{len(report.matched)} matched, 0 missing, 0 unexpected")
    assert (f"would be written: {out / 'adapter/adapter_model.safetensors'}" in said) != merge
    assert sum("OmgLlavaForConditionalGeneration" in line for line in said) == 1


@pytest.mark.parametrize("absent", range(3))
def test_a_part_that_is_missing(sources, tmp_path, capsys, absent):
    kept = [str(source) for index, source in enumerate(sources) if index != absent]
    before = sorted(tmp_path.rglob("*"))
    assert run(["convert", *kept, str(tmp_path / "out")]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    part = ["the trained file", "the OMG-Seg file", "the class embeddings"][absent]
    assert f"check {part}" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_merging_asks_for_a_language_model(sources, tmp_path, capsys):
    assert run(["convert", str(sources[1]), str(tmp_path / "out"), "--merge-lora"]) == 2
    assert "--merge-lora" in capsys.readouterr().err


def test_a_tokenizer_of_another_length(sources, tmp_path, capsys):
    llm = load("tiny/llm/model")
    for key in ("model.tok_embeddings.weight", "output.weight"):
        llm[key] = torch.cat((llm[key], llm[key][:3]))
    save_file(llm, sources[3] / "model.safetensors")
    assert run(["convert", *map(str, sources), str(tmp_path / "out")]) == 2
    assert "expected a tokenizer of 405 tokens" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_content(sources, tmp_path, capsys):
    assert run(["convert", *map(str, sources), str(tmp_path)]) == 2
    assert "new or empty folder" in capsys.readouterr().err
