"""Relevance: the score, handed back layer by layer by a table of rules."""
