"""Making swap autoencoders: extraction, reenactment, training, evaluation, export."""

import understudy as understudy  # keeps libraries quiet before any is loaded
