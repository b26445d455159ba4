"""OMG-LLaVA: a language model that talks about what OMG-Seg sees, and points at it with masks."""
