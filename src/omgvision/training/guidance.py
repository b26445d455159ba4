"""What words mean to each other, learned from a sentence encoder: a small text tower then knows more than its classes.

A tower trained on two hundred class names alone cannot place any other word. Here it also learns, for words of its
tokenizer's vocabulary, how similar a pretrained sentence encoder finds them: "kitten" then lies beside "cat".
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

MIN_LETTERS = 3


class WordGuidance(nn.Module):
    """Loss between the cosines of words in our text tower and in a teacher.

    Args:
        names: The words that matter most; an eighth of every draw.
        words: Other words.
        teach: Texts → unit embeddings of the teacher [N, any width]; called once, here.
        draws: Words a step.
    """

    def __init__(
        self, names: Sequence[str], words: Sequence[str], *, teach: Callable[[Sequence[str]], Tensor], draws: int = 128
    ):
        super().__init__()
        self.words, self.names, self.draws = [*names, *words], len(names), draws
        self.teacher = teach(self.words)  # no buffer: processes would send it to each other in every step

    def forward(self, encode: Callable[[Sequence[str]], Tensor]) -> Tensor:
        """Mean squared difference of all pairs of drawn words.

        Args:
            encode: Words → unit embeddings [N, D] of the tower that learns.
        """
        of_names = torch.randint(self.names, (self.draws // 8,))
        others = torch.randint(self.names, len(self.words), (self.draws - len(of_names),))
        drawn = torch.cat((of_names, others))
        ours = encode([self.words[int(index)] for index in drawn])
        theirs = self.teacher[drawn].to(ours.device)
        return F.mse_loss(ours @ ours.T, theirs @ theirs.T)


def frequent_words(tokenizer: PreTrainedTokenizerBase, count: int) -> list[str]:
    """The `count` most frequent whole words of a byte-pair vocabulary; its merges are ordered by frequency."""
    by_rank = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    words = (token.removesuffix("</w>") for token, _ in by_rank if token.endswith("</w>"))
    return [word for word in words if len(word) >= MIN_LETTERS and word.isascii() and word.isalpha()][:count]


def sentence_encoder(folder: str, *, batch_size: int = 256) -> Callable[[Sequence[str]], Tensor]:
    """Texts → unit embeddings, by a sentence-transformers model with mean pooling (all-MiniLM-L6-v2)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Tensor:
        rows = []
        for start in range(0, len(texts), batch_size):
            batch = tokenizer(list(texts[start : start + batch_size]), padding=True, return_tensors="pt")
            used = batch["attention_mask"][..., None]
            hidden = model(**batch).last_hidden_state
            rows.append(F.normalize((hidden * used).sum(1) / used.sum(1), dim=-1))
        return torch.cat(rows)

    return encode
