"""Making swap autoencoders: extraction, reenactment, training, evaluation, export."""
