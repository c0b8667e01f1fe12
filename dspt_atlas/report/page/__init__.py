"""One self-contained HTML page on folders of runs."""
