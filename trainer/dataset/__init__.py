"""Files of a run -> blocks of one length to train on, and what is held out to judge by."""
