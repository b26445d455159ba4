"""`omg chat`: one question, several, a task, a terminal; files, messages, exit codes."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from omg_cli.main import run
from tests.golden_llava import processor, random_llava, text_config, tokenizer

SIDE = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A very small OMG-LLaVA that can read 300 tokens."""
    path = tmp_path_factory.mktemp("models") / "llava"
    model = random_llava(text_config(max_position_embeddings=300))
    model.generation_config.eos_token_id = [2, 400]
    model.generation_config.pad_token_id = 2
    model.save_pretrained(path)
    processor(SIDE).save_pretrained(path)
    return path


@pytest.fixture
def answers(monkeypatch) -> list[str]:
    """What the model is made to say, one after the other; filled by a test. "Ctrl-C" is an interruption."""
    script: list[str] = []

    def load_llava(*arguments: Any, **options: Any) -> Any:
        chat = loaded(*arguments, **options)
        state = {"turn": -1, "step": 0}

        def begin(module: Any, arguments: Any, options: dict[str, Any]) -> None:
            if options["inputs_embeds"].shape[1] > 1:
                state["turn"], state["step"] = state["turn"] + 1, 0

        def force(module: Any, arguments: Any, logits: torch.Tensor) -> torch.Tensor:
            text = script[state["turn"]]
            ids = tokenizer()(text.removesuffix("Ctrl-C"), add_special_tokens=False)["input_ids"]
            if text.endswith("Ctrl-C") and state["step"] == len(ids):
                raise KeyboardInterrupt
            forced = torch.full_like(logits, -1e4)
            forced[..., ids[state["step"]] if state["step"] < len(ids) else 2] = 0
            state["step"] += 1
            return forced

        chat.model.lm_head.register_forward_hook(force)
        chat.model.model.language_model.register_forward_pre_hook(begin, with_kwargs=True)
        return chat

    from omgvision import hub

    loaded = hub.load_llava
    monkeypatch.setattr(hub, "load_llava", load_llava)
    return script


@pytest.fixture
def picture(photo, tmp_path) -> Path:
    photo.save(tmp_path / "street.png")
    return tmp_path / "street.png"


@pytest.fixture
def chat(folder, capsys, monkeypatch):
    """Runs `omg chat` with the small model; returns exit code, standard output, standard error."""

    def call(*arguments: object, typed: str = "", model: object = folder) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code = run(["chat", *map(str, arguments), "--model", str(model), "--device", "cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- asked once ------------------------------------------------------------------------------------------------------


def test_one_question(chat, answers, picture, tmp_path):
    answers.append("<p> A car </p> [SEG] on a road.<|im_end|>")
    code, out, err = chat(picture, "--ask", "What is here?", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "A car on a road."
    assert lines[1].startswith("  mask 1 A car: ")
    assert names(tmp_path / "out") == {"answer.json", "overlay.png", "mask-1.png"}
    written = json.loads((tmp_path / "out" / "answer.json").read_text())
    assert (written["question"], written["text"]) == ("What is here?", "A car on a road.")
    area = int((np.asarray(Image.open(tmp_path / "out" / "mask-1.png")) > 0).sum())
    assert f"{area} pixels" in lines[1] or (area == 0 and lines[1].endswith("empty"))


def test_several_questions_are_one_conversation(chat, answers, picture, tmp_path):
    answers += ["<p> It </p> [SEG].<|im_end|>", "Because.<|im_end|>"]
    code, out, err = chat(picture, "--ask", "What?", "--ask", "Why?", "--point", "30,30", "--out", tmp_path / "out")
    assert code == 0, err
    assert out.startswith("It.\n") and "\nBecause.\n" in out
    assert {"turn-1.answer.json", "turn-2.answer.json", "turn-1.mask-1.png"} <= names(tmp_path / "out")


def test_tasks(chat, answers, picture, tmp_path):
    answers += ["<p> Sky </p> [SEG].<|im_end|>"] * 9

    def asked(*arguments: object) -> list[str]:
        code, _, err = chat(picture, *arguments, "--out", tmp_path / "out")
        assert code == 0, err
        files = sorted((tmp_path / "out").glob("*answer.json"))
        found = [json.loads(file.read_text())["question"] for file in files]
        for file in files:
            file.unlink()
        return found

    assert asked("--task", "segment", "--ask", "sky") == ["Please segment sky in this image."]
    assert asked("--task", "refer", "--ask", "the man on the left")[0].startswith("Please segment the man")
    assert "interleaved segmentation masks" in asked("--task", "gcg")[0]
    assert asked("--task", "caption", "--ask", "Why?")[1] == "Why?"
    regions = asked("--task", "region", "--point", "30,30", "--box", "1,1,40,40")
    assert [question.partition("region1 ")[2] for question in regions] == ["<mark>?", "<region>?"]
    [choice] = asked("--task", "choice", "--ask", "What?", "--choice", "a cat", "--choice", "a dog")
    assert choice.startswith("What?\nA. a cat\nB. a dog\n")


def test_what_is_cut_and_what_never_comes(chat, answers, picture):
    answers += ["I see no cat here.<|im_end|>"] * 2
    code, out, err = chat(picture, "--task", "refer", "--ask", "the cat")
    assert (code, out) == (0, "I see no cat here.\n") and "no mask came" in err
    code, out, err = chat(picture, "--ask", "And?", "--max-new-tokens", "3")
    assert code == 0 and "I see no cat here.".startswith(out.strip()) and "cut at its limit" in err


def test_without_a_picture(chat, answers, tmp_path):
    answers.append("It is two.<|im_end|>")
    code, out, _ = chat("--ask", "What is 1 + 1?", "--system", "Be brief.", "--out", tmp_path / "out")
    assert (code, out.splitlines()[0]) == (0, "It is two.")
    assert names(tmp_path / "out") == {"answer.json"}


def test_a_conversation_that_grows_too_long(chat, answers, picture, tmp_path):
    answers += ["Yes.<|im_end|>"] * 40
    questions = [part for number in range(12) for part in ("--ask", f"And what is at number {number} over there?")]
    code, out, err = chat(picture, *questions, "--max-new-tokens", "20")
    assert code == 2 and "longer than the model can read" in err and 0 < out.count("Yes.") < 12
    assert "--drop-oldest" in err and "--max-new-tokens" in err
    code, out, err = chat(picture, *questions, "--max-new-tokens", "20", "--drop-oldest", "--out", tmp_path / "out")
    assert code == 0 and out.count("Yes.") == 12, err
    assert {f"turn-{number}.answer.json" for number in range(1, 13)} <= names(tmp_path / "out")


def test_what_was_answered_before_an_error_is_written(chat, answers, picture, tmp_path):
    answers += ["One.<|im_end|>", "Two.<|im_end|>"]
    long = "Why? " * 300
    code, out, err = chat(picture, "--ask", "What?", "--ask", long, "--ask", "And?", "--out", tmp_path / "out")
    assert code == 2 and "longer than the model can read" in err
    assert out.startswith("One.\n") and "Two." not in out
    assert json.loads((tmp_path / "out" / "answer.json").read_text())["text"] == "One."


# --- in the terminal -------------------------------------------------------------------------------------------------


def test_a_conversation(chat, answers, picture, tmp_path):
    answers += ["One.<|im_end|>", "<p> It </p> [SEG].<|im_end|>", "Two.<|im_end|>", "Three.<|im_end|>"]
    typed = f"""What is <mark>?
/point 30,30
What is <mark>?

/box 1,1,40,40
/region
/save {tmp_path / "saved"}
/reset
And?
/image {picture}
/segment sky
/dance
/point 300,1
/save
/help
/exit
never read
"""
    code, out, err = chat(picture, typed=typed)
    assert code == 0
    said = [line for line in out.splitlines() if line.endswith(".") and len(line) < 8]
    assert said == ["One.", "It.", "Two.", "Three."]
    assert "expected one for each of 1 placeholders" in err  # the first question; it costs nothing
    assert "there is no command /dance" in err and "outside of the image" in err and "/save needs a folder" in err
    assert {"turn-1.answer.json", "turn-2.answer.json"} <= names(tmp_path / "saved")
    assert "/refer WORDS" in out


def test_a_new_conversation_takes_no_answer_back(chat, answers, picture, tmp_path):
    answers += ["One.<|im_end|>", "Two.<|im_end|>", "Three.<|im_end|>"]
    code, _, _ = chat(picture, "--out", tmp_path / "out", typed=f"A?\n/reset\nB?\n/image {picture}\nC?\n/reset\n")
    written = [json.loads((tmp_path / "out" / f"turn-{number}.answer.json").read_text()) for number in (1, 2, 3)]
    assert code == 0 and [each["text"] for each in written] == ["One.", "Two.", "Three."]


def test_ctrl_c_ends_an_answer_and_not_the_program(chat, answers, picture, tmp_path):
    answers += ["I think thatCtrl-C", "Yes.<|im_end|>"]
    code, out, err = chat(picture, "--out", tmp_path / "out", typed="What?\nSure?\n")
    assert code == 0 and "interrupted" in err
    assert out.splitlines()[:2] == ["I think that", "Yes."]
    assert json.loads((tmp_path / "out" / "answer.json").read_text())["question"] == "Sure?"  # the end of input saves


def test_ctrl_c_outside_of_a_conversation_ends_the_command(chat, answers, picture, tmp_path):
    answers.append("I think thatCtrl-C")
    code, _, _ = chat(picture, "--ask", "What?", "--out", tmp_path / "out")
    assert code == 130 and not (tmp_path / "out").exists()


def test_phrases_are_coloured_on_a_terminal(chat, answers, picture, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    from omgvision.visualization import identity_color

    answers.append("See <p> a car </p> [SEG].<|im_end|>")
    _, out, _ = chat(picture, "--ask", "What?")
    red, green, blue = identity_color(1)
    colored = f"\x1b[1;38;2;{red};{green};{blue}m"
    assert out.startswith("See") and colored in out
    assert out.index("See") < out.index(colored) < out.index("car")


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "say"),
    [
        (("--point", "1,2", "--ask", "What?"), "give IMAGE as well"),
        (("--task", "gcg"), "give IMAGE as well"),
        (("PICTURE", "--task", "refer"), "expected words with --ask"),
        (("PICTURE", "--task", "region"), "expected --point, --box or --mask"),
        (("PICTURE", "--task", "gcg", "--point", "1,2"), "is about the whole picture"),
        (("PICTURE", "--task", "choice", "--ask", "What?"), "give both or neither"),
        (("PICTURE", "--ask", "What?", "--choice", "a"), "give both or neither"),
        (("PICTURE", "--task", "choice", "--ask", "What?", "--choice", "a"), "expected 2 to 26 options"),
        (("PICTURE", "--ask", " "), "expected some words"),
        (("PICTURE", "--ask", "What?", "--point", "1"), "expected X,Y"),
        (("PICTURE", "--ask", "What?", "--point", "1000,2"), "outside of the image"),
        (("PICTURE", "--ask", "What?", "--box", "9,9,1,1"), "box"),
        (("PICTURE", "--ask", "What?", "--mask", "none.png"), "none.png"),
        (("PICTURE", "--ask", "<mark>?"), "expected one for each of 1 placeholders"),
        (("PICTURE", "--task", "draw"), "caption"),
        (("none.jpg", "--ask", "What?"), "does not exist"),
        (("PICTURE", "--ask", "What?", "--temperature", "-1"), "temperature: expected 0"),
        (("PICTURE", "--ask", "What?", "--max-new-tokens", "0"), "max_new_tokens: expected at least 1"),
        (("PICTURE", "--ask", "What?", "--quantization", "4bit"), "expected a GPU"),
        (("PICTURE", "--ask", "What?", "--adapter", "nowhere"), "adapter_config.json"),
    ],
)
def test_one_line_for_what_cannot_be_asked(chat, picture, tmp_path, arguments, say):
    words = [str(picture) if each == "PICTURE" else each for each in arguments]
    code, _, err = chat(*words, "--out", tmp_path / "out")
    lines = err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and lines[0].startswith("omg: ") and say in lines[0], err
    assert not (tmp_path / "out").exists()


def test_other_models(chat, picture, tiny_model_dir, tmp_path, monkeypatch):
    code, _, err = chat(picture, "--ask", "What?", model=tiny_model_dir)
    assert code == 2 and "tiny is a segmenter and does not chat" in err
    code, _, err = chat(picture, "--ask", "What?", model=tmp_path / "none")
    assert code == 2 and "there is no model" in err
    monkeypatch.setattr("omgvision.hub.bundled_folder", lambda name="": tmp_path / "gone")
    code, _, err = chat(picture, "--ask", "What?", model="omg-llava-nano")
    assert code == 2 and "no bundled weights that chat" in err and "omg convert" in err
