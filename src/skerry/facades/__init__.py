"""One package for each wire protocol: parse, call the core once, render."""
