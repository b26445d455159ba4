"""OMG-Seg as Hugging Face classes."""
