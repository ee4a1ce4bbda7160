"""Memory modules: filter, entity, temporal, topic, summary; each is one class with a method for each kind of tier."""
