"""How alike two phrases are, from 0 to 1: what grounded captions need to tell whether a mask has the right name."""

from functools import cache
from typing import Any

BERT = "bert-base-uncased"


def ignore_phrases(first: str, second: str) -> float:
    """1: masks alone count."""
    return 1.0


def exact(first: str, second: str) -> float:
    """1 for the same words, whatever their case and spaces."""
    return float(first.lower().split() == second.lower().split())


def jaccard(first: str, second: str) -> float:
    """Shared words over all words, whatever their case; 0 without words."""
    one, other = set(first.lower().split()), set(second.lower().split())
    return len(one & other) / len(one | other) if one | other else 0.0


def bert_is_here() -> bool:
    """Whether `BertSimilarity` finds its weights on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(BERT, "config.json"), str)


class BertSimilarity:
    """Cosine between the means of BERT's last hidden states, as GLaMM's evaluation computes it (on the CPU).

    Args:
        name: Hub id or folder. Nothing is downloaded.

    Raises:
        ValueError: No such weights on this machine.
    """

    def __init__(self, name: str = BERT):
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(name, local_files_only=True).eval()
        except (OSError, ValueError):
            raise ValueError(
                f"similarity: expected the weights of {name} on this machine, got none: hf download {name}, or take "
                "another similarity (the recall is then not the official one)"
            ) from None
        self._embed = cache(self._compute)

    def __call__(self, first: str, second: str) -> float:
        import torch

        return float(torch.cosine_similarity(self._embed(first), self._embed(second), dim=0))

    def _compute(self, text: str) -> Any:
        import torch

        with torch.inference_mode():
            inputs = self._tokenizer(text, return_tensors="pt", max_length=512, truncation=True)
            return self._model(**inputs).last_hidden_state[0].mean(dim=0)
