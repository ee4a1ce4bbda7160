"""Wire formats of other model APIs, translated to and from the core's chat messages: pure, bounded, both ways."""
