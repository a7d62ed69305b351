"""Low-rank methods of the library ``peft`` (Mangrulkar et al. 2022): settings in `config`, their use in `model`."""
