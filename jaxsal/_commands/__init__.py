"""The commands of ``jaxsal``, one a file: ``prepare`` checks all that was given; what it returns does the work."""
