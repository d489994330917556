"""Stand-ins for PBS and Cobalt: they refuse what the real ones refuse, and run the rest in the same way.

Sources: OpenPBS 23.06.06 as it was seen to behave, and its pbs_error.h; Cobalt's clients and its cqm.py. `commands.py`
of each scheduler is its command line; `server.py` starts jobs and ends them; what both know is in one file, `state.py`.
"""
