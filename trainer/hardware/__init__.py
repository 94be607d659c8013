"""What the machine has, how much of it is in use, and what slows it down."""
