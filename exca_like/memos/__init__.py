"""What a memoised function is made of: keys, places, what is kept, and how it gets to jobs."""
