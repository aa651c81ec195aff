"""Files of parameters: what PyTorch wrote, and whose parameters they are."""
