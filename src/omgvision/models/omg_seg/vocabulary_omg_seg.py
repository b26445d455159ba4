"""Words to class embeddings: prompt templates, synonyms, the CLIP tokenizer, and averaging as the original does it.

Letters: K classes, P prototypes (synonyms) a class, D width of the CLIP space, N texts, S tokens.

Nothing here knows the model: encoding takes any callable from token ids to text features, so the functions are
differentiable when the callable is, and testable without weights.
"""

import functools
import gzip
import html
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

TextEncoder = Callable[[Tensor, Tensor], Tensor]
"""(input_ids [N,S], attention_mask [N,S]) → text features [N,D], not normalised."""

CONTEXT_LENGTH = 77
BPE_TABLE = Path(__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"

_IN_SCENE = ("There is a {} in the scene", "There is the {} in the scene", "a photo of a {} in the scene")
_SIZES = ("small", "medium", "large")
TEMPLATES: tuple[str, ...] = (
    "a photo of a {}.",
    "This is a photo of a {}",
    *_IN_SCENE,
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)
"""The prompts of ViLD that OMG-Seg encodes every name with; their embeddings are averaged."""


def split_synonyms(name: str) -> list[str]:
    """The spellings in a class name: commas, slashes and "_or_" separate them, underscores are spaces, all lower case.

    "Wall_or_brick wall" → ["wall", "brick wall"]. Each becomes a prototype of the class. Empty pieces are dropped, so
    an empty name gives an empty list.
    """
    pieces = name.replace("_or_", ",").replace("/", ",").replace("_", " ").lower().split(",")
    return [piece.strip() for piece in pieces if piece.strip()]


def check_names(names: Sequence[str]) -> list[list[str]]:
    """The synonyms of each name.

    Raises:
        ValueError: no names, one that is empty, or two that say the same.
    """
    if isinstance(names, str):
        raise ValueError(f"class names: expected a list of names, got the single text {names!r}; write [{names!r}]")
    synonyms = [split_synonyms(name) for name in names]
    if not synonyms:
        raise ValueError("class names: expected at least one name, got an empty list")
    position: dict[tuple[str, ...], int] = {}
    for index, pieces in enumerate(synonyms):
        if not pieces:
            raise ValueError(f"class names: expected a word, got {names[index]!r} at position {index}; leave it out")
        first = position.setdefault(tuple(pieces), index)
        if first != index:
            raise ValueError(
                f"class names: expected different names, got {names[first]!r} and {names[index]!r} at positions "
                f"{first} and {index}; remove one"
            )
    return synonyms


@functools.cache
def build_clip_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer from the bundled merge table: 49,408 tokens, ids as in OpenCLIP; one a process."""
    with gzip.open(BPE_TABLE, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    # The table holds more merges than CLIP uses: its 49,152 tokens less two alphabets of 256 and the two special ones.
    merges = [(first, second) for first, second in map(str.split, lines[1 : 49152 - 256 - 2 + 1])]
    alphabet = _byte_alphabet()
    tokens = [
        *alphabet,
        *(f"{symbol}</w>" for symbol in alphabet),
        *("".join(pair) for pair in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT_LENGTH)  # pyright: ignore[reportArgumentType]


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in the order of CLIP's token ids: bytes that print as they are
    first, then the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]


def tokenize(texts: Sequence[str], *, tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [N,S], padded to the longest text; more than 77 tokens are cut, the end kept.

    HTML entities and curly quotes become plain characters, as in OpenCLIP (which also repairs mis-decoded text; this
    does not).
    """
    plain = [html.unescape(html.unescape(text)).translate(_QUOTES).strip() for text in texts]
    batch = tokenizer(plain, padding=True, truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"'})


class VocabularyCache:
    """Least-recently-used text embeddings [D], by content: the synonym, the templates and the weights.

    Holds single synonyms, not lists of classes, so that a changed list only pays for its new words.
    """

    def __init__(self, *, max_entries: int = 16384) -> None:
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._max_entries = max_entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Tensor | None:
        """The embedding, which becomes the most recently used; None when unknown."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: Hashable, embedding: Tensor) -> None:
        """Remembers an embedding and forgets the least recently used one beyond the limit."""
        self._entries[key] = embedding
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A short name for the content of weights: names, shapes and up to 64 evenly spaced values of each tensor.

    Meant to notice other or further trained weights within milliseconds; two that differ in a few values may agree.
    """
    digest = blake2b(digest_size=16)
    for name, tensor in tensors:
        values = tensor.detach().flatten()
        sample = values[:: max(1, values.numel() // 64)][:64].float().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def average_templates(features: Tensor, *, templates: int) -> Tensor:
    """Features [N·templates, D], the templates of one text next to each other → unit embeddings [N, D], float32.

    Every sentence is normalised, then averaged, then normalised again (the original's tools/gen_cls.py).
    """
    sentences = F.normalize(features.float(), dim=-1).unflatten(0, (-1, templates))
    return F.normalize(sentences.mean(1), dim=-1)


def stack_prototypes(embeddings: dict[str, Tensor], synonyms: Sequence[Sequence[str]]) -> Tensor:
    """[K, P, D]: the synonyms of each class; classes with fewer than P repeat their first."""
    most = max(map(len, synonyms))
    return torch.stack(
        [
            torch.stack([embeddings[piece] for piece in [*pieces, *[pieces[0]] * (most - len(pieces))]])
            for pieces in synonyms
        ]
    )


def encode_names(
    names: Sequence[str],
    *,
    encode_text: TextEncoder,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device | str = "cpu",
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = 32,
    cache: VocabularyCache | None = None,
    weights: str = "",
) -> Tensor:
    """Class names → unit embeddings [K, P, D], P the largest number of synonyms.

    Args:
        names: K class names; see `split_synonyms` for their spelling.
        encode_text: the text tower, not normalising.
        tokenizer: of that tower.
        device: where the tower expects its token ids.
        templates: sentences with one `{}`.
        batch_size: words encoded at once, each in all templates; bounds the memory of a large vocabulary.
        cache: words known from earlier calls. Give `weights` with it. Keeps tensors as they are, so not while gradients
            are wanted.
        weights: what the tower's weights are called in the cache, see `fingerprint`.

    Raises:
        ValueError: no names, an empty one, or two that say the same.
    """
    synonyms = check_names(names)
    words = list(dict.fromkeys(piece for pieces in synonyms for piece in pieces))
    recipe = (weights, tuple(templates))
    known = {word: cache.get((recipe, word)) for word in words} if cache is not None else {}
    embeddings = {word: embedding for word, embedding in known.items() if embedding is not None}
    missing = [word for word in words if word not in embeddings]
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        texts = [template.format(word) for word in batch for template in templates]
        ids, mask = tokenize(texts, tokenizer=tokenizer)
        features = encode_text(ids.to(device), mask.to(device))
        for word, embedding in zip(batch, average_templates(features, templates=len(templates)), strict=True):
            embeddings[word] = embedding
            if cache is not None:
                cache.put((recipe, word), embedding.clone())
        logger.info("encoded %d of %d words", start + len(batch), len(missing))
    return stack_prototypes(embeddings, synonyms)
