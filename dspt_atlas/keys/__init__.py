"""What a configuration key is: each is declared once, with default, comment, allowed values and role."""
