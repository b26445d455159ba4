"""`omg train` for OMG-LLaVA: each recipe's steps on tiny folders in the real layouts, with tiny models."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from omg_cli.main import app
from omgvision.chat import Conversation
from omgvision.errors import UserError
from omgvision.llava import load_llava
from omgvision.training import checkpoint
from omgvision.training.llava_objective import ConversationObjective
from omgvision.training.run import build, run
from omgvision.training.trainer import train
from tests.integration.llava_runs import referring, small_objective
from tests.llava_folders import LANGUAGE_MODELS, SIDE, save_language_model, save_llava, save_segmenter
from tests.llava_layouts import write_all

SMALL = {
    "image_size": str(SIDE),
    "epochs": "none",
    "steps": "2",
    "stages.0.batch_size": "2",
    "accumulation": "1",
    "precision": "fp32",
    "gradient_checkpointing": "false",
    "workers": "0",
    "log_every": "1",
    "checkpoint_every": "0",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return save_segmenter(tmp_path_factory.mktemp("segmenter"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, data, segmenter):
    """What the first stage makes of a segmenter and a language model."""
    root = tmp_path_factory.mktemp("pretrain")
    language = save_language_model(root / "llm", "llama")
    settings = {"data": str(data), "out": str(root / "run"), "segmenter": str(segmenter), "llm": str(language)}
    return run("llava_pretrain", SMALL | settings)


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_first_stage_gives_a_folder(pretrained):
    model, processor = load_llava(pretrained)
    assert model.config.image_size == SIDE and not model.config.own_mask_decoder
    assert processor.square((64, 96)).network == SIDE
    assert all(line["projection"] > 0 for line in log_of(pretrained.parent))


@pytest.mark.parametrize(("recipe", "own"), [("llava_finetune", False), ("llava_refseg", True), ("llava_gcg", True)])
def test_later_stages_go_on_from_it(recipe, own, data, pretrained, tmp_path):
    settings = {"data": str(data), "out": str(tmp_path), "start": str(pretrained), "rank": "2", "evaluate_every": "2"}
    folder = run(recipe, SMALL | settings | {"validate": "2", "datasets": "llava,flickr" if not own else ""})
    assert folder is not None
    model, _ = load_llava(folder)
    assert model.config.own_mask_decoder == own
    before = load_file(pretrained / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"model.projector.separator", "lm_head.weight", "model.language_model.embed_tokens.weight"} <= moved
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in moved
    assert not any(name.startswith("model.vision_tower.") for name in moved)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_any_language_model_takes_the_same_step(kind, data, segmenter, tmp_path):
    language = save_language_model(tmp_path / "llm", kind)
    settings = {"data": str(data), "out": str(tmp_path / "run"), "segmenter": str(segmenter), "llm": str(language)}
    settings |= {"rank": "2", "steps": "1", "datasets": "flickr,refcoco,mdpv_qa_vg"}
    folder = run("llava_finetune", SMALL | settings)
    assert folder is not None
    model, processor = load_llava(folder)
    picture = Image.fromarray(np.full((60, 90, 3), 90, dtype=np.uint8))
    answer = Conversation(model, processor, image=picture).ask("What is it?", max_new_tokens=4)
    assert isinstance(answer.text, str)


def trained(objective: ConversationObjective):
    return {name: value.detach().clone() for name, value in objective.named_parameters() if value.requires_grad}


def test_a_resumed_run_is_the_same_bit_for_bit(data, tmp_path):
    """With dropout in the adapters, random sentences, and random points of masks."""
    folder = save_llava(tmp_path / "start", own_mask_decoder=True)
    results = []
    for name in ("whole", "parts"):
        objective, recipe = small_objective(folder, data=data, out=tmp_path / name)
        source = referring(recipe)
        train(objective, source, recipe)
        if name == "parts":
            newest = checkpoint.folder_of(recipe.out, 3)
            shutil.rmtree(newest)
            shutil.rmtree(checkpoint.folder_of(recipe.out, 2))
            objective, recipe = small_objective(folder, data=data, out=tmp_path / name)
            with torch.no_grad():  # the checkpoint decides, not what is there
                for parameter in objective.model.model.projector.parameters():
                    parameter.add_(1.0)
            run_of = train(objective, source, recipe, resume=True)
            assert run_of.step == 3
        results.append(trained(objective))
    whole, parts = results
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def write_own(folder):
    """Eight conversations of one's own, with masks, prompts and without a picture."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(folder / "a.png")
    mask = np.zeros((60, 90), dtype=np.uint8)
    mask[10:40, 20:70] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    asked = {"user": "Segment the wall.", "assistant": "<p> The wall </p> [SEG].", "masks": ["mask.png"]}
    pointed = {"user": "What is <mark>?", "assistant": "A wall.", "prompts": [{"point": [30, 20]}]}
    entries = [{"image": "a.png", "turns": [asked, pointed]}] * 7 + [
        {"turns": [{"user": "Hello!", "assistant": "Hello."}]}
    ]
    path = folder / "conversations.json"
    path.write_text(json.dumps(entries))
    return path


def test_conversations_of_ones_own(tmp_path):
    """One command; what it writes is a model for chat, and was measured on what was held back."""
    start, path = save_llava(tmp_path / "start"), write_own(tmp_path)
    settings = {"data": str(path), "start": str(start), "out": str(tmp_path / "run"), "rank": "2", "holdout": "4"}
    settings |= {"evaluate_every": "2"}
    arguments = [f"{name}={value}" for name, value in (SMALL | settings).items()]
    result = CliRunner().invoke(app, ["train", "chat_finetune", *arguments])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "run" / "weights"
    model, processor = load_llava(folder)
    answer = Conversation(model, processor, image=Image.open(tmp_path / "a.png").convert("RGB")).ask(
        "Segment the wall.", max_new_tokens=4
    )
    assert isinstance(answer.text, str)
    measured = [line["evaluation"] for line in log_of(tmp_path / "run") if "evaluation" in line]
    assert len(measured) == 2 and measured[0].keys() == {"text", "word accuracy", "mask IoU", "cIoU"}
    assert all(0 <= measured[1][name] <= 1 for name in ("word accuracy", "mask IoU", "cIoU"))
    plan = CliRunner().invoke(app, ["train", "chat_finetune", *arguments, "--dry-run"])
    assert plan.exit_code == 0 and "6 samples an epoch" in plan.output, plan.output


def test_what_a_user_can_get_wrong(tmp_path, data):
    with pytest.raises(UserError, match="start: expected the folder of an OMG-LLaVA model"):
        build("llava_pretrain", {"data": str(data)})
    with pytest.raises(UserError, match="expected a JSON file of a saved model"):
        build("llava_finetune", {"data": str(data), "start": str(tmp_path)})
    start = save_llava(tmp_path / "start")
    with pytest.raises(UserError, match="data: expected the files of refcoco, "):
        build("llava_refseg", SMALL | {"data": str(tmp_path), "start": str(start), "rank": "2"})
    with pytest.raises(ValueError, match="conversations: no such file"):
        build("chat_finetune", SMALL | {"data": str(tmp_path / "no.json"), "start": str(start), "rank": "2"})
    with pytest.raises(UserError, match="image_size: expected a multiple of 64"):
        build("llava_pretrain", {"data": str(data), "llm": str(start), "image_size": "100"})
