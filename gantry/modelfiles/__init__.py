"""Model files: what a GGUF file says of itself, folders of them, and `models.yaml`. Knows no database."""
