"""Images, scenes and data sets."""
