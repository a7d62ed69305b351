"""The frozen CLIP and language model, the trainable projection between them, and their assembly.

``config`` has the settings (no torch), ``clip_encoder`` extracts features, ``backbone`` loads a language model,
``frozen_backbone`` says what one offers, ``t5_backbone`` and ``causal_backbone`` offer it, ``projection`` and
``relative_bias`` join the two, ``clip_t5`` is the assembly, ``adapter`` the files it is saved to.
"""
