"""One run: its folder, its identity, what it leaves, and taking it up again."""
