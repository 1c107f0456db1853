"""From a trained version to the one that is live: registry, promotion, release."""
