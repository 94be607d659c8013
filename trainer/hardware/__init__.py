"""The hardware: its memory, out-of-memory errors (OOM), and what slows it down."""
