"""The paper's tables with a run's own numbers: as JSON, as one web page, as pictures, in the terminal."""
