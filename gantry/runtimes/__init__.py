"""One adapter per kind of LLM server: the wire below, planning's types above. Knows nothing of Django."""
