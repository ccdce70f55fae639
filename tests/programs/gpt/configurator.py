"""Changes the globals of the program that executes it: files of assignments, and --name=value."""

import sys
from ast import literal_eval

for arg in sys.argv[1:]:
    if "=" not in arg:
        assert not arg.startswith("--")
        print(f"config from {arg}")
        with open(arg) as f:
            exec(f.read())
    else:
        assert arg.startswith("--")
        key, val = arg[2:].split("=", 1)
        if key not in globals():
            raise ValueError(f"unknown setting: {key}")
        try:
            attempt = literal_eval(val)
        except (SyntaxError, ValueError):
            attempt = val
        assert type(attempt) is type(globals()[key]), f"{key}: {type(attempt).__name__}"
        globals()[key] = attempt
