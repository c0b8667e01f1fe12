"""What is run: protocols, sweeps and the evidence as lists of runs."""
