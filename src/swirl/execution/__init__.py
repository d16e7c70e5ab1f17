"""Where the blocks of a journal are made: in this process, or by workers of a Ray cluster. Their bytes are the same."""
