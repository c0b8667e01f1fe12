"""What people look at: text tables, figures, the HTML page."""
