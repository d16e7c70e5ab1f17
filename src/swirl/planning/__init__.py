"""`swirl plan`: estimates of what a run takes, and the servers and keys it needs."""
