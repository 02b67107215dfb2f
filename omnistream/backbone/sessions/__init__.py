"""Sessions that remember: options, caches, steps, and heads that stream."""
