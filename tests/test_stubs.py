"""The checked-in stub file says what the installed extension has."""

import inspect
from pathlib import Path

import flambeau
from flambeau import _flambeau

STUB = Path(flambeau.__file__).parent / "_flambeau.pyi"


def test_stub_is_what_the_table_says():
    text = _flambeau._stub_text()
    assert STUB.read_text() == text, (
        "python/flambeau/_flambeau.pyi is out of date; write it anew with\n"
        "python -c \"from flambeau import _flambeau; print(_flambeau._stub_text(), end='')\" > python/flambeau/_flambeau.pyi"
    )


def test_operators_have_signatures_and_help():
    stated = 0
    for name, function in _flambeau.operators.items():
        assert function.__doc__, name
        # One with overloads has no one signature: its help lists them.
        if function.__text_signature__ is None:
            assert all("(" in line for line in function.__doc__.splitlines()), name
        else:
            inspect.signature(function)
            stated += 1
    assert stated > 400


def test_rows_parse_and_names_are_known():
    rows = _flambeau._signature_rows()
    assert len(rows) > 400
    for name, text, _ in rows:
        assert text.startswith(name + "("), text
