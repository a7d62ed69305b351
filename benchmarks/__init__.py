"""What maintainers run, outside the installed package: speed beside peers, faults, fuzzing, tokenizer parity."""
