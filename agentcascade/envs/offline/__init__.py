"""Stand-ins for models that need no network, always labelled as what they are."""
