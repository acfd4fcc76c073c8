"""Files of every accepted format -> documents, prompt/completion records and conversations.

`reader` reads a corpus; `examples` is what it is made of; `formats` has every format, one entry
each. What cannot be used is skipped with its reason; too much of it ends the run. Formats that a
hostile file could use against their library are read in a child process with limits.
"""
