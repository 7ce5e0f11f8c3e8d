"""Ends by which other programs take hold of tokenprune: thin, each for one program."""
