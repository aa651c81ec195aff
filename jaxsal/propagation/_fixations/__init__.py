"""Single points of evidence, traced back from winner to winner."""
