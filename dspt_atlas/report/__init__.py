"""Reports for people: text tables, figures, the HTML page."""
