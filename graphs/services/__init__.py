"""The other side of the example workflows, as real processes: a credit bureau, a risk service and a mail sink.

Each is `python -m graphs.services.<name> --port 0 ...`: it prints its addresses as one JSON line once it listens, keeps
what it must not forget in a file that is synced before it answers, and stops on SIGTERM. `launch` starts all three.
"""
