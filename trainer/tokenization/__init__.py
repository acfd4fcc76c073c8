"""Examples -> tokens on disk: chat template, loss mask, chunks, and a cache for every start."""
