"""ALFWorld: household tasks in text, played in the real TextWorld engine."""
