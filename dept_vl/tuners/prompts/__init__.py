"""Soft prompts: their first values, prompts of trained runs, and learning from another one."""
