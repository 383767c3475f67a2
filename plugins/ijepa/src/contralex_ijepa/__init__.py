"""I-JEPA: the tokens of target blocks, predicted from a context block, as a contralex plugin."""
