"""Who agreed to what: records, keys, checks. A command, too."""
