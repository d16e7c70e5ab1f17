"""Language models: tokenizer, chat template, training from nothing, loading and saving."""
