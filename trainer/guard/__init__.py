"""What watches over a run: whether it still learns, when it is past its best, and what came of it."""
