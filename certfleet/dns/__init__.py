"""TXT records in other people's zones: where they belong, who writes them, and whether they are seen."""
