"""The benchmark of conversations runs, counts how often a picture is seen, and its table is made."""

import json

import pytest
import torch

from benchmarks import chat, make_tables


@pytest.mark.slow
def test_it_runs_and_its_table_is_made(tmp_path, capsys):
    assert chat.main(["--quick", "--output", str(tmp_path / "chat.json")]) == 0
    report = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))
    assert (report["seen"], report["turns"]) == (1, 2)
    assert all(report["first_turn"][name] > 0 for name in ("picture", "word", "mask"))
    table = make_tables.chat(report)
    assert "In 2 turns the picture was seen 1 time." in table and "tokens a second of the language model alone" in table
    assert table in capsys.readouterr().out


def test_the_language_model_alone_is_the_same_one():
    """What is timed side by side computes the same."""
    model, _ = chat.build(chat.quick_setup())
    alone = chat.language_model_alone(model)
    ids = torch.tensor([[65, 66, 67]])
    with torch.no_grad():
        torch.testing.assert_close(alone(input_ids=ids).logits, model(input_ids=ids).logits)
