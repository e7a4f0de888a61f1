"""The families of base models that text_to_image fine-tunes, one file a family."""
