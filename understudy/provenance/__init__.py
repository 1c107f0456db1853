"""How a result says what it is: C2PA, XMP, watermark, label. A command, too."""
