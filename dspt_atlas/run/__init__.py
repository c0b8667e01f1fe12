"""One run: its folder, its identity, its files, and using it again."""
