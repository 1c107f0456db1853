"""One face replaced by another: settings, renderers, blending, and the looks that believe neither."""
