"""QLoRA fine-tuning as one job: text in, adapter out."""

__version__ = "0.1.0"
