"""What runs before training and never during it: raw files to prepared manifests to a feature cache."""
