"""What all base models that write text have in common."""
