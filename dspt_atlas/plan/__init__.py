"""Plans: protocols, sweeps, tables and the evidence as lists of runs."""
