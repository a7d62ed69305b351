"""The frozen models, how they are joined and saved, and the trainable projection between them."""
