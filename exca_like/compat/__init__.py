"""Reading what exca wrote."""
