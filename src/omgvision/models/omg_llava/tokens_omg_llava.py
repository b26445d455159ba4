"""The tokens that OMG-LLaVA needs of a language model's tokenizer."""

from transformers import AddedToken, PreTrainedTokenizerBase

from .answers_omg_llava import IMAGE, MARK, REGION, SEGMENT, SPECIAL_TOKENS

TURN_TOKENS = ("<|im_start|>", "<|im_end|>")


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Adds the tokens that OMG-LLaVA needs to the tokenizer of any language model, where they are missing.

    Afterwards ``model.resize_token_embeddings(len(tokenizer))`` gives them rows, and :func:`token_ids` are the ids for
    the configuration.
    """
    known = tokenizer.get_vocab()
    missing = [token for token in (*TURN_TOKENS, *SPECIAL_TOKENS) if token not in known]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing], special_tokens=True)


def token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The fields of `OmgLlavaConfig` that the tokenizer decides."""
    vocabulary = tokenizer.get_vocab()
    return {
        "segment_token_id": vocabulary[SEGMENT],
        "region_token_id": vocabulary[REGION],
        "mark_token_id": vocabulary[MARK],
        "image_token_id": vocabulary[IMAGE],
    }


__all__ = ["TURN_TOKENS", "prepare_tokenizer", "token_ids"]
