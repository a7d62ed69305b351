"""What ``import dept_vl`` offers: a trained run as an object, and the main jobs as one call each."""
