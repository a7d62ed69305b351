"""Several runs for one answer: seeds, sweeps, transfer from a source task. Each run is an ordinary run folder."""
