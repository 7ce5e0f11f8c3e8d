"""How tokens are intercepted: logical outside the decoder layers, physical inside. Knows nothing of any method."""
