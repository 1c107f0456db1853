"""From a trained version to the one that is live: registry, promotion, release."""

import understudy as understudy  # keeps libraries quiet before any is loaded
