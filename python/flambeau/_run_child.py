"""Imported by multiprocessing's fork server in a process that `python -m flambeau` started."""

from ._run import install

install()
