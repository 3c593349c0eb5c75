"""Pretrained weights of others: families as data (`family`), read (`huggingface`) and written back."""
