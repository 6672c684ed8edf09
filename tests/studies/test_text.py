"""Tables of studies."""

from anyorder.studies.text import columns


def test_columns():
    rows = [["a", "1", "10.0"], ["longer", "22", "1.5"]]
    assert columns("name|n|x", rows) == "name     n     x\na        1  10.0\nlonger  22   1.5"
    assert columns("name|n|x", rows, left=2) == "name    n      x\na       1   10.0\nlonger  22   1.5"
    assert columns("name|much", [["a", ""]]) == "name  much\na"
