"""A loss for contralex: the decoupled contrastive loss."""
