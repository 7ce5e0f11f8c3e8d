"""What a patch costs and what it saves, measured so that a shared machine cannot fool anybody."""
