"""SmolLM2 from GGUF: the matrices in Llama's order, and a vocabulary that still spells everything."""

import pytest
import torch
from transformers import LlamaModel

from omgvision.conversion.smollm2 import EMBEDDING, read_smollm2
from omgvision.errors import UserError
from omgvision.models.omg_llava.packing_omg_llava import Q8_0
from tests.tiny_gguf import LAYERS, write_gguf


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, write_gguf(path)


def test_matrices_are_in_llamas_order(written):
    path, matrices = written
    read = read_smollm2(path)
    state = read.state()
    LlamaModel(read.config).load_state_dict(state)
    assert read.config.num_hidden_layers == LAYERS and read.config.tie_word_embeddings
    for name, matrix in matrices.items():
        # Four bits a number: within half a step of its block, which is a fifteenth of the block's range.
        torch.testing.assert_close(state[name], matrix, atol=0.04, rtol=0, msg=name)


def test_a_smaller_vocabulary_keeps_what_is_needed_and_spells_the_rest(written):
    read = read_smollm2(written[0])
    smaller = read.with_words([" dog", " segment"], merges=0)
    tokenizer = smaller.tokenizer
    assert len(tokenizer) == smaller.config.vocab_size < len(read.tokenizer)
    assert tokenizer.convert_ids_to_tokens(tokenizer(" dog")["input_ids"]) == ["Ġdog"]
    assert len(tokenizer(" cat")["input_ids"]) == 4  # by letters
    text = "A red dog, 42 images — and a cat?\n<|im_end|>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert "<repo_name>" not in tokenizer.get_vocab()
    rows, old = smaller.packed[EMBEDDING + Q8_0], read.packed[EMBEDDING + Q8_0]
    for piece in ("Ġdog", "<|im_end|>", "a"):
        assert torch.equal(rows[tokenizer.get_vocab()[piece]], old[read.tokenizer.get_vocab()[piece]])
    assert smaller.config.eos_token_id == tokenizer.eos_token_id == tokenizer.get_vocab()["<|im_end|>"]


def test_the_most_frequent_pieces_stay(written):
    read = read_smollm2(written[0])
    assert len(read.with_words([], merges=10**6).tokenizer) == len(read.tokenizer) - 1  # but for <repo_name>
    few = read.with_words([], merges=3).tokenizer
    assert few.convert_ids_to_tokens(few(" dog")["input_ids"]) == ["Ġdog"]


@pytest.mark.parametrize("content", [None, b"GGUFnothing", b""])
def test_no_such_file_or_another(content, tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="expected a GGUF file of SmolLM2 in Q4_1"):
        read_smollm2(path)
