"""The HTML report of a run or an evaluation: charts, tables and example images."""
