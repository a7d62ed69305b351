"""The typed settings of a run: what they are, how they are read, how help prints them."""
