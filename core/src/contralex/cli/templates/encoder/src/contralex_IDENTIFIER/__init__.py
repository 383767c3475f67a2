"""An encoder for contralex: ConvMixer, and a projector."""
