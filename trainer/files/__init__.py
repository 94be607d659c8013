"""Reading and writing of files: completely or not at all, text in any encoding, and names that are valid everywhere."""
