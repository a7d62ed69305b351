"""The frozen image encoder and language model, the trainable projection between them, and their assembly.

``config`` has the settings (no torch), ``vision`` the image encoders and the projection of their features, ``language``
the language models, ``adapted_model`` the assembly, ``adapter`` the files that what was trained is saved to.
"""
