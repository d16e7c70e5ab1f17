"""Reads the logs of agents, in the formats that they come in, as conversations whose assistant turns are actions."""
