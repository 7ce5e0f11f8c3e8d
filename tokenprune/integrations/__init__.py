"""Other people's frameworks: thin layers that put the methods to work there."""
