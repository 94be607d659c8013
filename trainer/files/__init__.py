"""How files are written and read: whole or not at all, as text in any encoding, under names that every system takes."""
