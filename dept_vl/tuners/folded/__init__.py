"""What is left of a method that has been folded into plain weights: settings in `config`, computation in `model`."""
