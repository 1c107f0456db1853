"""Making personas and networks: extraction, triplets, training, evaluation, export."""

import understudy as understudy  # keeps libraries quiet before any is loaded
