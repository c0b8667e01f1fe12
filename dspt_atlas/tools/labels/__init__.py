"""Wrong labels: who judges them, their ranking, a page for a person's decisions, and what follows from these."""
