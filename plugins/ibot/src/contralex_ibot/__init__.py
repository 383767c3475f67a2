"""iBOT: self-distillation of class tokens and of masked patches, as a contralex plugin."""
