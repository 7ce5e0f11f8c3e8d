"""How the embedded models were trained: one file a phase."""
