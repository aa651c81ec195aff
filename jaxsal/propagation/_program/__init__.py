"""A traced function as relevance, differences and fixations see it: flat, read, walked backwards."""
