"""The template definitions that ship: one TOML file each, read by `skerry.host.definitions`."""
