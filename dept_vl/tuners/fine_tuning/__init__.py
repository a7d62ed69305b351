"""Full fine-tuning: settings in `config`, the method in `model`."""
