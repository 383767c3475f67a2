"""DINOv2: class tokens, hidden patches and an even spread, asked of one encoding, as a contralex plugin."""
