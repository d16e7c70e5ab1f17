"""Language models: loading and saving, pointers, adapters, chat templates, prompts, FLOPs."""
