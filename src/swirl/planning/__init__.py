"""`swirl plan`: how much of what a run takes, and which servers and keys it needs."""
