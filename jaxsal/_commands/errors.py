"""What a command raises when the fault is in what it was given."""


class BadInput(ValueError):
    """Bad usage or bad input: ends the program with exit code 2 and the message as one line."""
