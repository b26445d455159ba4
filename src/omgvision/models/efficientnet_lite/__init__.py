"""EfficientNet-Lite as a Hugging Face backbone."""
