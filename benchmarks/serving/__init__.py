"""What a server of many adapters does, measured: its model, its clients, its images (``python -m benchmarks.serving``).

`shapes` makes the runs; `table` is the model alone beside PEFT's LoRA; `load` a server under clients; `images` a second
question about an image.
"""
