"""The ways in over HTTP: account flows, the console, health."""
