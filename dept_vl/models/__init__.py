"""The frozen CLIP and T5, the trainable projection between them, and their assembly.

``config`` has the settings (no torch), ``clip_encoder`` extracts features, ``backbone`` loads T5, ``projection`` and
``relative_bias`` join the two, ``clip_t5`` is the assembly, ``adapter`` the files it is saved to.
"""
