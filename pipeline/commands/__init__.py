"""The commands of `tuneline`, a module a subject: each parses, calls a step, prints. pipeline/__main__.py puts them together."""
